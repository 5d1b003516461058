//! Texts are cut where a reader would pause.

use voxline::sentences::{MAX_SENTENCE_CHARS, sentences};

#[test]
fn sentences_end_where_a_reader_would_end_them() {
    for (text, expected) in [
        ("", &[][..]),
        (" \n ", &[]),
        ("One. Two! Three? Four… Five", &["One.", "Two!", "Three?", "Four…", "Five"]),
        ("Mr. Smith met Dr. Jones. They spoke.", &["Mr. Smith met Dr. Jones.", "They spoke."]),
        ("It costs 3.5 dollars. Really.", &["It costs 3.5 dollars.", "Really."]),
        ("Use tools, e.g. Rust. Fine.", &["Use tools, e.g. Rust.", "Fine."]),
        ("He left at 5 p.m. yesterday. She stayed.", &["He left at 5 p.m. yesterday.", "She stayed."]),
        ("He left at 5 p.m. She stayed.", &["He left at 5 p.m.", "She stayed."]),
        ("Apples, pears, etc. Then cake.", &["Apples, pears, etc.", "Then cake."]),
        ("J. R. R. Tolkien wrote. So did I. And you.", &["J. R. R. Tolkien wrote.", "So did I.", "And you."]),
        ("“Really?” she asked. “Yes.” He left.", &["“Really?” she asked.", "“Yes.”", "He left."]),
        ("Wait... what? Well... Yes.", &["Wait... what?", "Well...", "Yes."]),
        ("See example.com. It is v1.2.3.", &["See example.com.", "It is v1.2.3."]),
        ("A line\nbroken in two. Next", &["A line\nbroken in two.", "Next"]),
        ("Title\n\nFirst paragraph\r\n\r\nSecond", &["Title", "First paragraph", "Second"]),
        ("Это т.е. пример. И т.д. Конец.", &["Это т.е. пример.", "И т.д.", "Конец."]),
        (
            "Живу в г. Москва. Родился в 1990 г. Учился.",
            &["Живу в г. Москва.", "Родился в 1990 г.", "Учился."],
        ),
        ("А. С. Пушкин и А.С. Пушкин. Да.", &["А. С. Пушкин и А.С. Пушкин.", "Да."]),
        ("ул. Ленина, д. 5, кв. 12. Второй этаж.", &["ул. Ленина, д. 5, кв. 12.", "Второй этаж."]),
        ("— Куда? — спросил он. — Домой!", &["— Куда? — спросил он.", "— Домой!"]),
        ("«Да». Он ушёл в 5 ч. утра.", &["«Да».", "Он ушёл в 5 ч. утра."]),
        ("Цена 3,5 тыс. рублей. Дорого.", &["Цена 3,5 тыс. рублей.", "Дорого."]),
        ("?! ...", &["?!", "..."]),
    ] {
        assert_eq!(sentences(text).collect::<Vec<_>>(), expected, "{text:?}");
    }
}

#[test]
fn a_long_sentence_is_cut_at_a_clause_then_a_word_then_anywhere() {
    let clauses = format!("{}, {}", "a ".repeat(70).trim(), "b ".repeat(70).trim());
    let first = sentences(&clauses).next().unwrap();
    assert!(first.ends_with("a,"), "{first}");
    let words = "слово ".repeat(100);
    assert!(sentences(&words).all(|piece| piece.starts_with("слово") && piece.ends_with("слово")));
    let solid = "ы".repeat(1_000);
    assert_eq!(
        sentences(&solid).map(|piece| piece.chars().count()).collect::<Vec<_>>(),
        [200, 200, 200, 200, 200]
    );
    // Marks and quotes at the limit: only white space is lost, and no piece is longer than the limit.
    for filler in 190..210 {
        for tail in
            ["…»»»»»»»»»»»» Дальше", "...............", ".\"\"\"\"\"\"\"\" Next", "! ! ! ! !", ",,,,,, , , ,"]
        {
            let text = format!("{}{tail}", "й".repeat(filler));
            let pieces: Vec<&str> = sentences(&text).collect();
            assert!(pieces.iter().all(|piece| (1..=MAX_SENTENCE_CHARS).contains(&piece.chars().count())));
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(pieces.iter().map(|piece| solid(piece)).collect::<String>(), solid(&text));
        }
    }
}
