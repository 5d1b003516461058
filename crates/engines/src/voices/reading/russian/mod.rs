//! Rules for reading Russian aloud.
//!
//! A number is in the nominative, or in the genitive after a preposition that requires it; its gender is
//! inferred from the ending of the next word. Dates are in the genitive.

mod numbers;
mod words;

use std::sync::LazyLock;

use regex::Captures;

use self::numbers::{Case, Gender, Noun, cardinal, counted, ordinal};
use self::words::{
    ABBREVIATIONS, CENT, DOLLAR, EURO, HUNDREDTH, KOPECK, MONTHS, PENNY, PERCENT, POUND, RUBLE, TENTH,
    THOUSANDTH, WHOLE, unit,
};
use super::{Rule, number, text};

/// Words that require the genitive.
const GENITIVE: &[&str] = &[
    "до",
    "от",
    "из",
    "с",
    "без",
    "около",
    "после",
    "более",
    "менее",
    "больше",
    "меньше",
    "свыше",
    "для",
    "кроме",
];

pub(super) fn rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        vec![
            // 1 234 567: groups of three digits are one number.
            Rule::new(r"\b[1-9][0-9]{0,2}(?:[ \u{a0}\u{2009}\u{202f}][0-9]{3})+\b", |found| {
                Some(found[0].chars().filter(char::is_ascii_digit).collect())
            }),
            Rule::new(
                r"\+?\b[78][ \u{a0}-]?\(?[0-9]{3}\)?[ \u{a0}-]?[0-9]{3}[ \u{a0}-]?[0-9]{2}[ \u{a0}-]?[0-9]{2}\b",
                telephone,
            ),
            Rule::new(r"(?P<before>^|[\s(«])[-−](?P<digit>[0-9])", |found| {
                Some(format!("{}минус {}", &found["before"], &found["digit"]))
            }),
            Rule::new(
                r"\b(?P<day>[0-3]?[0-9])\.(?P<month>[01]?[0-9])\.(?P<year>[12][0-9]{3})(?:\s?(?:г\.|года))?",
                date,
            ),
            Rule::new(r"\b(?P<year>[12][0-9]{3})-(?P<month>[01][0-9])-(?P<day>[0-3][0-9])\b", date),
            Rule::new(
                r"\b(?P<day>[0-3]?[0-9]) (?P<name>(?:янв|фев|мар|апр|ма|июн|июл|авг|сен|окт|ноя|дек)[а-я]*)\b",
                |found| {
                    let month = MONTHS.iter().find(|&&month| month == &found["name"])?;
                    let day = number(found, "day").filter(|day| (1..=31).contains(day))?;
                    Some(format!("{} {month}", ordinal(day, "го")?))
                },
            ),
            Rule::new(
                r"\b(?P<year>[12][0-9]{3})(?:\s(?P<word>год|года|году|годом|годы|годов|годах)\b|\s?(?P<short>гг?\.))",
                year,
            ),
            Rule::new(r"\b(?P<number>[0-9]{1,4})-(?P<ending>[а-я]{1,3})\b", |found| {
                let (number, ending) = (number(found, "number")?, &found["ending"]);
                // `е` means the plural for decades (the nineties), but not for days (the fifth of May).
                ordinal(number, if ending == "е" && number >= 10 && number % 10 == 0 { "ые" } else { ending })
            }),
            Rule::new(
                r"\b(?P<roman>[IVX]+)(?P<first>\s?[-–]\s?(?P<second>[IVX]+))? (?P<word>век[а-я]*|в\.|вв\.)",
                century,
            ),
            Rule::new(r"\b(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])\b", time),
            Rule::new(
                r"(?P<sign>[$€£])\s?(?P<whole>[0-9]+)(?:[.,](?P<part>[0-9]+))?(?:\s(?P<times>тыс\.?|млн\.?|млрд\.?|трлн\.?))?",
                money,
            ),
            Rule::new(
                r"\b(?P<whole>[0-9]+)(?:[.,](?P<part>[0-9]+))?\s?(?:(?P<times>тыс\.?|млн\.?|млрд\.?|трлн\.?)\s?)?(?P<sign>[$€£₽]|руб\b\.?|р\.|коп\.)",
                money,
            ),
            Rule::new(
                r"(?i)\b(?:(?P<before>[а-яё]+)\s)?(?P<whole>[0-9]+)(?:[.,](?P<part>[0-9]+))?\s?(?P<unit>%|°\s?C|°|(?:тыс|млн|млрд|трлн|км/ч|м/с|км|см|мм|кг|мг|мл|га|мин|сек|кВт|ГБ|МБ|кБ|Гц|кГц|МГц|м²|м|г|л|ч)\b\.?)",
                measured,
            ),
            Rule::new(r"№\s?", |_| Some("номер ".to_owned())),
            Rule::new(r"\b(?P<above>[1-9])/(?P<below>[2-9]|10)\b", |found| {
                let (above, below) = (number(found, "above")?, number(found, "below")?);
                let ending = if above == 1 { "я" } else { "х" };
                Some(format!(
                    "{} {}",
                    cardinal(above, Gender::Feminine, Case::Nominative),
                    ordinal(below, ending)?
                ))
            }),
            // 1.2.3 is not a number.
            Rule::new(r"\b[0-9]+(?:\.[0-9]+){2,}\b", |found| {
                Some(found[0].split('.').map(spelt).collect::<Vec<_>>().join(" точка "))
            }),
            Rule::new(r"\b(?P<whole>[0-9]+)[.,](?P<part>[0-9]+)\b", |found| {
                decimal(number(found, "whole")?, &found["part"])
            }),
            Rule::new(r"\b(?P<from>[0-9]+)\s?[-–—]\s?(?P<to>[0-9]+)\b", |found| {
                Some(format!("{} {}", &found["from"], &found["to"]))
            }),
            Rule::new(r"(?P<letter>[a-zA-Zа-яА-ЯёЁ])(?P<digit>[0-9])", |found| {
                Some(format!("{} {}", &found["letter"], &found["digit"]))
            }),
            Rule::new(r"(?P<digit>[0-9])(?P<letter>[a-zA-Zа-яА-ЯёЁ])", |found| {
                Some(format!("{} {}", &found["digit"], &found["letter"]))
            }),
            Rule::new(r"\b(?P<before>[а-яёА-ЯЁ]+)\s(?P<number>[1-9][0-9]{0,14})\b", |found| {
                let case = Some(asked(&found["before"])).filter(|&case| case == Case::Genitive)?;
                Some(format!(
                    "{} {}",
                    &found["before"],
                    cardinal(number(found, "number")?, Gender::Masculine, case)
                ))
            }),
            Rule::new(r"\b(?P<number>[0-9]+)\b(?:\s(?P<after>[а-яё]+))?", plain),
            Rule::new(r"(?:^|\b)(?P<short>[а-яА-Я]+(?:\.\s?[а-я]+)*\.)(?P<end>\s*$)?", |found| {
                let short = found["short"].to_lowercase().replace(' ', "");
                let (_, long) = ABBREVIATIONS.iter().find(|(abbreviation, _)| *abbreviation == short)?;
                let end = if found.name("end").is_some() { "." } else { "" };
                Some(format!("{long}{end}"))
            }),
        ]
    });
    &RULES
}

/// Reads `+7 495 123-45-67` in groups of three and two digits, with a pause between them.
fn telephone(found: &Captures) -> Option<String> {
    let digits: String = found[0].chars().filter(char::is_ascii_digit).collect();
    let groups = [&digits[..1], &digits[1..4], &digits[4..7], &digits[7..9], &digits[9..]];
    let plus = if found[0].starts_with('+') { "плюс " } else { "" };
    Some(plus.to_owned() + &groups.map(spelt).join(", "))
}

/// Reads digits as a number, with its leading zeros.
fn spelt(digits: &str) -> String {
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    let mut words = vec!["ноль".to_owned(); zeros];
    // A longer number has no name, so its digits are read one by one.
    if digits.len() > 15 {
        words.extend(digits[zeros..].chars().map(|digit| spelt(digit.encode_utf8(&mut [0; 4]))));
    } else if let Ok(number) = digits[zeros..].parse() {
        words.push(cardinal(number, Gender::Masculine, Case::Nominative));
    }
    words.join(" ")
}

fn date(found: &Captures) -> Option<String> {
    let (day, month, year) = (number(found, "day")?, number(found, "month")?, number(found, "year")?);
    let month = MONTHS.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    let day = ordinal(Some(day).filter(|day| (1..=31).contains(day))?, "го")?;
    Some(format!("{day} {month} {} года", ordinal(year, "го")?))
}

fn year(found: &Captures) -> Option<String> {
    let year = number(found, "year")?;
    let (ending, word) = match (text(found, "word"), text(found, "short")) {
        ("год", _) => ("й", "год"),
        ("году", _) => ("м", "году"),
        ("годом", _) => ("ым", "годом"),
        ("годы", _) => ("ые", "годы"),
        ("годов", _) => ("х", "годов"),
        ("годах", _) => ("х", "годах"),
        (_, "гг.") => ("й", "годов"),
        _ => ("го", "года"),
    };
    Some(format!("{} {word}", ordinal(year, ending)?))
}

fn century(found: &Captures) -> Option<String> {
    let (ending, word) = match &found["word"] {
        "век" => ("й", "век"),
        "веке" => ("м", "веке"),
        "веку" => ("му", "веку"),
        "веком" => ("ым", "веком"),
        "века" | "в." => ("го", "века"),
        "веков" | "вв." => ("го", "веков"),
        _ => return None,
    };
    let first = ordinal(roman(&found["roman"])?, ending)?;
    match found.name("second") {
        Some(second) => Some(format!("{first} {} {word}", ordinal(roman(second.as_str())?, ending)?)),
        None => Some(format!("{first} {word}")),
    }
}

/// Parses a Roman number up to 39, which suffices for centuries.
fn roman(digits: &str) -> Option<u64> {
    let tens = digits.chars().take_while(|&digit| digit == 'X').count();
    const UNITS: [&str; 10] = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"];
    // IX begins with no X, so the two do not overlap.
    let units = UNITS.iter().position(|&unit| unit == &digits[tens..])?;
    Some((10 * tens + units) as u64).filter(|&number| number > 0 && tens < 4)
}

fn time(found: &Captures) -> Option<String> {
    const HOUR: Noun = Noun { one: "час", two: "часа", five: "часов", gender: Gender::Masculine };
    let (hour, minute) = (number(found, "hour")?, &found["minute"]);
    if minute == "00" {
        return Some(counted(hour, HOUR, Case::Nominative));
    }
    Some(format!("{} {}", cardinal(hour, Gender::Masculine, Case::Nominative), spelt(minute)))
}

fn money(found: &Captures) -> Option<String> {
    let (whole, part, times) = (number(found, "whole")?, text(found, "part"), text(found, "times"));
    let (coin, small) = match &found["sign"] {
        "$" => (DOLLAR, CENT),
        "€" => (EURO, CENT),
        "£" => (POUND, PENNY),
        "коп." => (KOPECK, KOPECK),
        _ => (RUBLE, KOPECK),
    };
    if !times.is_empty() {
        return Some(format!("{} {}", quantity(whole, part, unit(times)?, Case::Nominative)?, coin.five));
    }
    match part.len() {
        0 => Some(counted(whole, coin, Case::Nominative)),
        2 => {
            let part = counted(part.parse().ok()?, small, Case::Nominative);
            Some(format!("{} {part}", counted(whole, coin, Case::Nominative)))
        }
        _ => quantity(whole, part, coin, Case::Nominative),
    }
}

/// Reads a number and its unit, after a word that may require a case.
fn measured(found: &Captures) -> Option<String> {
    let before = text(found, "before");
    let written = text(found, "unit").trim_end_matches('.');
    let unit = if written == "%" { PERCENT } else { unit(written)? };
    let quantity = quantity(number(found, "whole")?, text(found, "part"), unit, asked(before))?;
    let space = if before.is_empty() { "" } else { " " };
    Some(format!("{before}{space}{quantity}"))
}

/// Reads a quantity of a unit. After a fraction the unit has its form `two`.
fn quantity(whole: u64, part: &str, unit: Noun, case: Case) -> Option<String> {
    match part {
        "" => Some(counted(whole, unit, case)),
        part => Some(format!("{} {}", decimal(whole, part)?, unit.two)),
    }
}

/// Reads `3,5` as three wholes and five tenths. From four places on, the digits are read.
fn decimal(whole: u64, part: &str) -> Option<String> {
    let places = match part.len() {
        1 => TENTH,
        2 => HUNDREDTH,
        3 => THOUSANDTH,
        _ => {
            let whole = cardinal(whole, Gender::Masculine, Case::Nominative);
            let digits: Vec<String> =
                part.chars().map(|digit| spelt(digit.encode_utf8(&mut [0; 4]))).collect();
            return Some(format!("{whole} запятая {}", digits.join(" ")));
        }
    };
    let part = counted(part.parse().ok()?, places, Case::Nominative);
    Some(format!("{} {part}", counted(whole, WHOLE, Case::Nominative)))
}

/// Reads a number, and keeps the word after it.
fn plain(found: &Captures) -> Option<String> {
    let (digits, after) = (&found["number"], text(found, "after"));
    let words = match number(found, "number") {
        Some(number) if !digits.starts_with('0') && digits.len() <= 15 => {
            cardinal(number, gender(number, after), Case::Nominative)
        }
        _ => spelt(digits),
    };
    Some(if after.is_empty() { words } else { format!("{words} {after}") })
}

/// Returns the case that the word before a number requires.
fn asked(before: &str) -> Case {
    if GENITIVE.contains(&before.to_lowercase().as_str()) { Case::Genitive } else { Case::Nominative }
}

/// Returns the gender of the counted noun by its ending, which only 1 and 2 depend on.
fn gender(number: u64, after: &str) -> Gender {
    match (number % 10, after.chars().last()) {
        (1, Some('а' | 'я')) | (2, Some('ы' | 'и')) => Gender::Feminine,
        (1, Some('о' | 'е')) => Gender::Neuter,
        _ => Gender::Masculine,
    }
}
