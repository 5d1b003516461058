//! Scratch.
use std::ops::ControlFlow;
use std::time::Instant;
#[test]
#[expect(clippy::disallowed_methods, reason = "x")]
#[allow(clippy::print_stdout)]
fn lab() {
    let joe = super::voice("joe");
    joe.speak("One.", 1.0).unwrap();
    for text in ["Well, are you coming?", "The weather is fine today, and we go for a walk.", "The weather is fine today, and we go for a walk, because it's a nice day and the birds sing.",
      "When the train finally arrived at the station, after a delay of more than two hours, the passengers were so tired that nobody complained about the cold coffee."] {
        let mut firsts = vec![]; let mut totals = vec![]; let mut pieces = 0; let mut len = 0;
        for _ in 0..5 {
            let t = Instant::now(); let mut first = None; pieces = 0; len = 0;
            joe.speak_in_pieces(text, 1.0, &mut |p| { first.get_or_insert(t.elapsed()); pieces += 1; len += p.len(); ControlFlow::Continue(()) }).unwrap();
            firsts.push(first.unwrap()); totals.push(t.elapsed());
        }
        firsts.sort(); totals.sort();
        println!("{} chars {:.2} s: first {:?} (min {:?}) total {:?} pieces {pieces}", text.len(), len as f32 / 22050.0, firsts[2], firsts[0], totals[2]);
    }
}
