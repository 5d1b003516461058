//! Rules for reading English aloud, beyond those of espeak-ng, which reads numbers digit group by digit
//! group, and takes a dot for the end of a sentence.

use std::sync::LazyLock;

use regex::Captures;

use super::{Rule, number, text};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Abbreviations with their last dot, and their readings.
const ABBREVIATIONS: &[(&str, &str)] = &[
    ("Mr.", "Mister"),
    ("Mrs.", "Missus"),
    ("Ms.", "Miz"),
    ("Dr.", "Doctor"),
    ("Prof.", "Professor"),
    ("St.", "Saint"),
    ("Rev.", "Reverend"),
    ("Gen.", "General"),
    ("Sen.", "Senator"),
    ("Gov.", "Governor"),
    ("Capt.", "Captain"),
    ("Lt.", "Lieutenant"),
    ("Sgt.", "Sergeant"),
    ("Jr.", "Junior"),
    ("Sr.", "Senior"),
    ("Inc.", "Incorporated"),
    ("Ltd.", "Limited"),
    ("Co.", "Company"),
    ("Corp.", "Corporation"),
    ("Ave.", "Avenue"),
    ("Blvd.", "Boulevard"),
    ("Rd.", "Road"),
    ("vs.", "versus"),
    ("e.g.", "for example"),
    ("i.e.", "that is"),
    ("etc.", "et cetera"),
    ("approx.", "approximately"),
    ("dept.", "department"),
    ("est.", "established"),
    ("fig.", "figure"),
    ("vol.", "volume"),
    ("a.m.", "A M"),
    ("p.m.", "P M"),
    ("U.S.", "U S"),
    ("U.K.", "U K"),
    ("Jan.", "January"),
    ("Feb.", "February"),
    ("Aug.", "August"),
    ("Sept.", "September"),
    ("Oct.", "October"),
    ("Nov.", "November"),
    ("Dec.", "December"),
];

/// Units after a number: the sign, the singular and the plural.
const UNITS: &[(&str, &str, &str)] = &[
    ("km/h", "kilometer per hour", "kilometers per hour"),
    ("mph", "mile per hour", "miles per hour"),
    ("km", "kilometer", "kilometers"),
    ("cm", "centimeter", "centimeters"),
    ("mm", "millimeter", "millimeters"),
    ("m", "meter", "meters"),
    ("kg", "kilogram", "kilograms"),
    ("mg", "milligram", "milligrams"),
    ("g", "gram", "grams"),
    ("lbs", "pound", "pounds"),
    ("lb", "pound", "pounds"),
    ("oz", "ounce", "ounces"),
    ("ft", "foot", "feet"),
    ("ml", "milliliter", "milliliters"),
    ("min", "minute", "minutes"),
    ("sec", "second", "seconds"),
    ("GB", "gigabyte", "gigabytes"),
    ("MB", "megabyte", "megabytes"),
    ("KB", "kilobyte", "kilobytes"),
    ("GHz", "gigahertz", "gigahertz"),
    ("MHz", "megahertz", "megahertz"),
    ("kHz", "kilohertz", "kilohertz"),
    ("Hz", "hertz", "hertz"),
    ("kW", "kilowatt", "kilowatts"),
    ("°C", "degree Celsius", "degrees Celsius"),
    ("°F", "degree Fahrenheit", "degrees Fahrenheit"),
    ("°", "degree", "degrees"),
];

pub(super) fn rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        vec![
            Rule::new(r"(?:\+?1[ .-])?\(?\b[0-9]{3}\)?[ .-][0-9]{3}[.-][0-9]{4}\b", telephone),
            Rule::new(r"\+[0-9]{1,3}(?:[ .-]\(?[0-9]{2,4}\)?){2,5}\b", telephone),
            Rule::new(r"\b(?P<month>[01]?[0-9])/(?P<day>[0-3]?[0-9])/(?P<year>[12][0-9]{3})\b", date),
            Rule::new(r"\b(?P<year>[12][0-9]{3})-(?P<month>[01][0-9])-(?P<day>[0-3][0-9])\b", date),
            Rule::new(
                r"\b(?P<month>January|February|March|April|May|June|July|August|September|October|November|December|Jan\.|Feb\.|Aug\.|Sept\.|Oct\.|Nov\.|Dec\.) (?P<day>[0-3]?[0-9])\b(?:,? (?P<year>[12][0-9]{3})\b)?",
                |found| {
                    let day = ordinal(number(found, "day").filter(|day| (1..=31).contains(day))?);
                    let year = number(found, "year").map(|number| format!(", {}", year(number)));
                    Some(format!("{} {day}{}", &found["month"], year.unwrap_or_default()))
                },
            ),
            Rule::new(r"\b(?P<decade>[12][0-9][1-9]0)s\b", |found| {
                let decade = number(found, "decade")?;
                let tens = [
                    "teens",
                    "twenties",
                    "thirties",
                    "forties",
                    "fifties",
                    "sixties",
                    "seventies",
                    "eighties",
                    "nineties",
                ];
                Some(format!("{} {}", decade / 100, tens[(decade / 10 % 10) as usize - 1]))
            }),
            // After these words, a number of a year's size is a year.
            Rule::new(
                r"\b(?P<before>(?i:in|since|until|by|from|to|of|year|summer|winter|spring|autumn|fall)|(?:January|February|March|April|May|June|July|August|September|October|November|December),?) (?P<year>1[1-9][0-9]{2}|20[0-9]{2})\b",
                |found| Some(format!("{} {}", &found["before"], year(number(found, "year")?))),
            ),
            Rule::new(
                r"\b(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])\b(?P<half>\s?(?:[aApP]\.[mM]\.|[aApP][mM]\b))?(?P<end>\s*$)?",
                time,
            ),
            Rule::new(
                r"(?P<sign>[$€£])\s?(?P<whole>[0-9][0-9,]*)(?:\.(?P<part>[0-9]+))?(?:\s(?P<times>thousand|million|billion|trillion|[kKmMbB])\b)?",
                money,
            ),
            Rule::new(
                r"(?P<number>[0-9][0-9,.]*)\s?(?P<unit>km/h|mph|km|cm|mm|kg|mg|lbs|lb|oz|ft|ml|min|sec|GB|MB|KB|GHz|MHz|kHz|Hz|kW|m|g|°\s?C|°\s?F|°)(?P<end>[\s.,;:!?)]|$)",
                measured,
            ),
            Rule::new(r"\b(?P<above>[1-9])/(?P<below>[2-9]|10)\b", fraction),
            Rule::new(r"\bNo\. ?(?P<number>[0-9])", |found| Some(format!("number {}", &found["number"]))),
            Rule::new(r"(?:№|#)\s?(?P<number>[0-9])", |found| Some(format!("number {}", &found["number"]))),
            Rule::new(r"(?P<from>[0-9])\s?[-–—]\s?(?P<to>[0-9])", |found| {
                Some(format!("{} to {}", &found["from"], &found["to"]))
            }),
            // `St.` is a street after a name, and a saint before one.
            Rule::new(r"(?P<name>[a-z]) St\.", |found| Some(format!("{} Street", &found["name"]))),
            Rule::new(r"\b(?P<short>[A-Za-z](?:\.[a-zA-Z]|[a-z]*)\.)(?P<end>\s*$|\s+[A-Z])?", |found| {
                let short = &found["short"];
                let (_, long) = ABBREVIATIONS.iter().find(|(abbreviation, _)| *abbreviation == short)?;
                let end = text(found, "end");
                let stop = if end.trim().is_empty() && found.name("end").is_some() { "." } else { "" };
                Some(format!("{long}{stop}{end}"))
            }),
        ]
    });
    &RULES
}

/// Reads digit by digit, with a pause at the end of each part.
fn telephone(found: &Captures) -> Option<String> {
    let parts = found[0].split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let spelt: Vec<String> =
        parts.map(|part| part.chars().map(String::from).collect::<Vec<_>>().join(" ")).collect();
    let plus = if found[0].starts_with('+') { "plus " } else { "" };
    Some(format!("{plus}{}", spelt.join(", ")))
}

fn date(found: &Captures) -> Option<String> {
    let (month, day) = (number(found, "month")?, number(found, "day")?);
    let month = MONTHS.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    let day = ordinal(Some(day).filter(|day| (1..=31).contains(day))?);
    Some(format!("{month} {day}, {}", year(number(found, "year")?)))
}

/// Reads in hundreds: 1999 is nineteen ninety-nine. The first decade of a century is read in thousands or
/// with an oh.
fn year(year: u64) -> String {
    match (year / 100, year % 100) {
        (_, _) if (2_000..2_010).contains(&year) => year.to_string(),
        (century, 0) => format!("{century} hundred"),
        (century, rest @ 1..=9) => format!("{century} oh {rest}"),
        (century, rest) => format!("{century} {rest}"),
    }
}

/// Appends the ending of the ordinal, which espeak-ng reads.
fn ordinal(number: u64) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

fn time(found: &Captures) -> Option<String> {
    let (hour, minute) = (number(found, "hour")?, number(found, "minute")?);
    let half: String = text(found, "half").to_uppercase().chars().filter(char::is_ascii_alphabetic).collect();
    let half = half.chars().map(|letter| format!(" {letter}")).collect::<String>();
    let stop = if text(found, "half").ends_with('.') && found.name("end").is_some() { "." } else { "" };
    Some(match minute {
        0 if !half.is_empty() => format!("{hour}{half}{stop}"),
        0 if (1..=12).contains(&hour) => format!("{hour} o'clock"),
        0 => format!("{hour} hundred hours"),
        1..=9 => format!("{hour} oh {minute}{half}{stop}"),
        _ => format!("{hour} {minute}{half}{stop}"),
    })
}

fn money(found: &Captures) -> Option<String> {
    let (coin, small) = match &found["sign"] {
        "$" => ("dollar", "cent"),
        "€" => ("euro", "cent"),
        _ => ("pound", "penny"),
    };
    let (whole, part) = (&found["whole"], text(found, "part"));
    let times = match text(found, "times") {
        "k" | "K" => "thousand",
        "m" | "M" => "million",
        "b" | "B" => "billion",
        times => times,
    };
    // A comma after the number is no part of it.
    let (whole, comma) = whole.strip_suffix(',').map_or((whole, ""), |whole| (whole, ","));
    let several = |count: &str, coin: &str| match (count, coin) {
        ("1" | "01", coin) => format!("1 {coin}"),
        (count, "penny") => format!("{} pence", count.trim_start_matches('0')),
        (count, coin) => format!("{} {coin}s", count.trim_start_matches('0')),
    };
    Some(match (part.len(), times) {
        (0, "") if whole == "0" => format!("0 {coin}s{comma}"),
        (0, "") => format!("{}{comma}", several(whole, coin)),
        (2, "") if part == "00" => several(whole, coin),
        (2, "") if whole == "0" => several(part, small),
        (2, "") => format!("{} and {}", several(whole, coin), several(part, small)),
        (0, times) => format!("{whole} {times} {coin}s"),
        (_, "") => format!("{whole}.{part} {coin}s"),
        (_, times) => format!("{whole}.{part} {times} {coin}s"),
    })
}

fn measured(found: &Captures) -> Option<String> {
    let written: String = found["unit"].chars().filter(|c| !c.is_whitespace()).collect();
    let (_, one, several) = UNITS.iter().find(|(unit, _, _)| *unit == written)?;
    let number = &found["number"];
    let unit = if number == "1" { one } else { several };
    Some(format!("{number} {unit}{}", &found["end"]))
}

fn fraction(found: &Captures) -> Option<String> {
    let (above, below) = (number(found, "above")?, number(found, "below")?);
    let names = ["half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    let (name, plural) = (names[below as usize - 2], if above == 1 { "" } else { "s" });
    Some(match (above, below) {
        (1, _) => format!("one {name}"),
        (_, 2) => format!("{above} halves"),
        _ => format!("{above} {name}{plural}"),
    })
}
