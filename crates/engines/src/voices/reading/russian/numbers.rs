//! Russian numbers in words, by gender and case.

/// Gender of the counted noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gender {
    Masculine,
    Feminine,
    Neuter,
}

/// Cases of numbers: the two that prepositions determine most often. The accusative of things equals the
/// nominative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Nominative,
    Genitive,
}

/// Forms of a noun after 1, 2 and 5, the second also after a genitive 1, and its gender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noun {
    pub(super) one: &'static str,
    pub(super) two: &'static str,
    pub(super) five: &'static str,
    pub(super) gender: Gender,
}

impl Noun {
    /// Returns the form after `count`.
    pub(super) fn behind(self, count: u64, case: Case) -> &'static str {
        match (count % 100, count % 10, case) {
            (11..=14, _, _) => self.five,
            (_, 1, Case::Nominative) => self.one,
            // The genitive singular is also the form after 2.
            (_, 1, Case::Genitive) | (_, 2..=4, Case::Nominative) => self.two,
            _ => self.five,
        }
    }
}

pub(super) const fn masculine(one: &'static str, two: &'static str, five: &'static str) -> Noun {
    Noun { one, two, five, gender: Gender::Masculine }
}

pub(super) const fn feminine(one: &'static str, two: &'static str, five: &'static str) -> Noun {
    Noun { one, two, five, gender: Gender::Feminine }
}

/// Names of the powers of a thousand.
pub(super) const THOUSANDS: [Noun; 5] = [
    feminine("тысяча", "тысячи", "тысяч"),
    masculine("миллион", "миллиона", "миллионов"),
    masculine("миллиард", "миллиарда", "миллиардов"),
    masculine("триллион", "триллиона", "триллионов"),
    masculine("квадриллион", "квадриллиона", "квадриллионов"),
];

/// Numbers below 20: nominative, genitive, and the ordinal without its ending.
const SMALL: [[&str; 3]; 20] = [
    ["ноль", "нуля", "нулев"],
    ["один", "одного", "перв"],
    ["два", "двух", "втор"],
    ["три", "трёх", "трет"],
    ["четыре", "четырёх", "четвёрт"],
    ["пять", "пяти", "пят"],
    ["шесть", "шести", "шест"],
    ["семь", "семи", "седьм"],
    ["восемь", "восьми", "восьм"],
    ["девять", "девяти", "девят"],
    ["десять", "десяти", "десят"],
    ["одиннадцать", "одиннадцати", "одиннадцат"],
    ["двенадцать", "двенадцати", "двенадцат"],
    ["тринадцать", "тринадцати", "тринадцат"],
    ["четырнадцать", "четырнадцати", "четырнадцат"],
    ["пятнадцать", "пятнадцати", "пятнадцат"],
    ["шестнадцать", "шестнадцати", "шестнадцат"],
    ["семнадцать", "семнадцати", "семнадцат"],
    ["восемнадцать", "восемнадцати", "восемнадцат"],
    ["девятнадцать", "девятнадцати", "девятнадцат"],
];
const TENS: [[&str; 3]; 8] = [
    ["двадцать", "двадцати", "двадцат"],
    ["тридцать", "тридцати", "тридцат"],
    ["сорок", "сорока", "сороков"],
    ["пятьдесят", "пятидесяти", "пятидесят"],
    ["шестьдесят", "шестидесяти", "шестидесят"],
    ["семьдесят", "семидесяти", "семидесят"],
    ["восемьдесят", "восьмидесяти", "восьмидесят"],
    ["девяносто", "девяноста", "девяност"],
];
const HUNDREDS: [[&str; 3]; 9] = [
    ["сто", "ста", "сот"],
    ["двести", "двухсот", "двухсот"],
    ["триста", "трёхсот", "трёхсот"],
    ["четыреста", "четырёхсот", "четырёхсот"],
    ["пятьсот", "пятисот", "пятисот"],
    ["шестьсот", "шестисот", "шестисот"],
    ["семьсот", "семисот", "семисот"],
    ["восемьсот", "восьмисот", "восьмисот"],
    ["девятьсот", "девятисот", "девятисот"],
];

/// Returns the cardinal of any number below 10^18.
pub(super) fn cardinal(number: u64, gender: Gender, case: Case) -> String {
    if number == 0 {
        return SMALL[0][form(case)].to_owned();
    }
    let mut words = Vec::new();
    for (power, thousands) in THOUSANDS.iter().enumerate().rev() {
        let count = number / 1_000u64.pow(power as u32 + 1) % 1_000;
        if count > 0 {
            words.extend(below_thousand(count, thousands.gender, case));
            words.push(thousands.behind(count, case));
        }
    }
    words.extend(below_thousand(number % 1_000, gender, case));
    words.join(" ")
}

/// Returns `number` and `noun`.
pub(super) fn counted(number: u64, noun: Noun, case: Case) -> String {
    format!("{} {}", cardinal(number, noun.gender, case), noun.behind(number, case))
}

fn form(case: Case) -> usize {
    match case {
        Case::Nominative => 0,
        Case::Genitive => 1,
    }
}

fn below_thousand(number: u64, gender: Gender, case: Case) -> Vec<&'static str> {
    let (hundreds, rest) = (number / 100, number % 100);
    let mut words = Vec::new();
    if hundreds > 0 {
        words.push(HUNDREDS[hundreds as usize - 1][form(case)]);
    }
    if rest >= 20 {
        words.push(TENS[rest as usize / 10 - 2][form(case)]);
    }
    let unit = if rest >= 20 { rest % 10 } else { rest };
    if unit > 0 {
        words.push(match (unit, gender, case) {
            (1, Gender::Feminine, Case::Nominative) => "одна",
            (1, Gender::Neuter, Case::Nominative) => "одно",
            (1, Gender::Feminine, Case::Genitive) => "одной",
            (2, Gender::Feminine, Case::Nominative) => "две",
            _ => SMALL[unit as usize][form(case)],
        });
    }
    words
}

/// Returns the ordinal with the ending of an adjective, written as `-й`, `-го` and the like after digits.
/// Returns `None` for whole thousands, whose ordinals are one long word (except 2,000), and for an ending
/// that no adjective has.
pub(super) fn ordinal(number: u64, ending: &str) -> Option<String> {
    let (rest, hundreds) = (number % 100, number / 100 % 10);
    // 2000-й is one word; it is the only common one.
    if number == 2_000 {
        return Some(format!("двухтысячн{}", full_ending(ending, "двухтысячн")?));
    }
    let (last, before) = match (rest, hundreds) {
        (0, 0) => return None,
        (0, hundreds) => (HUNDREDS[hundreds as usize - 1][2], number - number % 1_000),
        (1..20, _) => (SMALL[rest as usize][2], number - rest),
        (rest, _) if rest % 10 == 0 => (TENS[rest as usize / 10 - 2][2], number - rest),
        (rest, _) => (SMALL[rest as usize % 10][2], number - rest % 10),
    };
    let last = format!("{last}{}", full_ending(ending, last)?);
    if before == 0 {
        return Some(last);
    }
    let before = cardinal(before, Gender::Masculine, Case::Nominative);
    // A year has no "одна" before its thousand.
    Some(format!("{} {last}", before.strip_prefix("одна ").unwrap_or(&before)))
}

/// Returns the ending that `short` stands for, after a stem.
fn full_ending(short: &str, stem: &str) -> Option<&'static str> {
    let (hard, soft) = match short {
        "й" | "ый" | "ой" | "ий" if ["втор", "шест", "седьм", "восьм", "сороков"].contains(&stem) => {
            ("ой", "")
        }
        "й" | "ый" | "ой" | "ий" => ("ый", "ий"),
        "я" | "ая" => ("ая", "ья"),
        "е" | "ое" => ("ое", "ье"),
        "ые" => ("ые", "ьи"),
        "го" | "ого" | "его" => ("ого", "ьего"),
        "му" | "ому" => ("ому", "ьему"),
        "м" | "ом" => ("ом", "ьем"),
        "ым" => ("ым", "ьим"),
        "х" | "ых" => ("ых", "ьих"),
        "ми" | "ыми" => ("ыми", "ьими"),
        "ю" | "ую" => ("ую", "ью"),
        _ => return None,
    };
    Some(if stem == "трет" { soft } else { hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_with_what_they_count() {
        let minute = feminine("минута", "минуты", "минут");
        for (number, nominative, genitive) in [
            (0, "ноль минут", "нуля минут"),
            (1, "одна минута", "одной минуты"),
            (2, "две минуты", "двух минут"),
            (12, "двенадцать минут", "двенадцати минут"),
            (21, "двадцать одна минута", "двадцати одной минуты"),
            (40, "сорок минут", "сорока минут"),
            (112, "сто двенадцать минут", "ста двенадцати минут"),
            (2_001, "две тысячи одна минута", "двух тысяч одной минуты"),
            (1_000_000, "один миллион минут", "одного миллиона минут"),
        ] {
            assert_eq!(counted(number, minute, Case::Nominative), nominative);
            assert_eq!(counted(number, minute, Case::Genitive), genitive);
        }
        let largest = cardinal(999_999_999_999_999_999, Gender::Masculine, Case::Nominative);
        assert!(largest.starts_with("девятьсот девяносто девять квадриллионов"), "{largest}");
    }

    #[test]
    fn ordinals_end_as_they_are_told() {
        for (number, ending, expected) in [
            (1, "й", "первый"),
            (2, "й", "второй"),
            (3, "й", "третий"),
            (3, "го", "третьего"),
            (3, "я", "третья"),
            (5, "го", "пятого"),
            (21, "е", "двадцать первое"),
            (40, "й", "сороковой"),
            (90, "е", "девяностое"),
            (100, "й", "сотый"),
            (300, "м", "трёхсотом"),
            (1945, "го", "тысяча девятьсот сорок пятого"),
            (2_000, "м", "двухтысячном"),
            (2_024, "м", "две тысячи двадцать четвёртом"),
        ] {
            assert_eq!(ordinal(number, ending).as_deref(), Some(expected), "{number}-{ending}");
        }
        assert_eq!(ordinal(5_000, "й"), None);
        assert_eq!(ordinal(5, "xyz"), None);
    }
}
