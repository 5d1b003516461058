//! Months, units, money and abbreviations.

use super::numbers::{Noun, THOUSANDS, feminine, masculine};

pub(super) const MONTHS: [&str; 12] = [
    "января",
    "февраля",
    "марта",
    "апреля",
    "мая",
    "июня",
    "июля",
    "августа",
    "сентября",
    "октября",
    "ноября",
    "декабря",
];

pub(super) const RUBLE: Noun = masculine("рубль", "рубля", "рублей");
pub(super) const KOPECK: Noun = feminine("копейка", "копейки", "копеек");
pub(super) const DOLLAR: Noun = masculine("доллар", "доллара", "долларов");
pub(super) const CENT: Noun = masculine("цент", "цента", "центов");
pub(super) const EURO: Noun = masculine("евро", "евро", "евро");
pub(super) const POUND: Noun = masculine("фунт", "фунта", "фунтов");
pub(super) const PENNY: Noun = masculine("пенс", "пенса", "пенсов");
pub(super) const PERCENT: Noun = masculine("процент", "процента", "процентов");

/// Names of the parts of a decimal, before and after the comma.
pub(super) const WHOLE: Noun = feminine("целая", "целых", "целых");
pub(super) const TENTH: Noun = feminine("десятая", "десятых", "десятых");
pub(super) const HUNDREDTH: Noun = feminine("сотая", "сотых", "сотых");
pub(super) const THOUSANDTH: Noun = feminine("тысячная", "тысячных", "тысячных");

/// Returns the noun that a unit is read as after a number.
pub(super) fn unit(written: &str) -> Option<Noun> {
    let written: String = written.chars().filter(|c| !c.is_whitespace() && *c != '.').collect();
    Some(match written.as_str() {
        "тыс" => THOUSANDS[0],
        "млн" => THOUSANDS[1],
        "млрд" => THOUSANDS[2],
        "трлн" => THOUSANDS[3],
        "км/ч" => masculine("километр в час", "километра в час", "километров в час"),
        "м/с" => masculine("метр в секунду", "метра в секунду", "метров в секунду"),
        "км" => masculine("километр", "километра", "километров"),
        "м" => masculine("метр", "метра", "метров"),
        "м²" => masculine("квадратный метр", "квадратных метра", "квадратных метров"),
        "см" => masculine("сантиметр", "сантиметра", "сантиметров"),
        "мм" => masculine("миллиметр", "миллиметра", "миллиметров"),
        "кг" => masculine("килограмм", "килограмма", "килограммов"),
        "г" => masculine("грамм", "грамма", "граммов"),
        "мг" => masculine("миллиграмм", "миллиграмма", "миллиграммов"),
        "л" => masculine("литр", "литра", "литров"),
        "мл" => masculine("миллилитр", "миллилитра", "миллилитров"),
        "га" => masculine("гектар", "гектара", "гектаров"),
        "ч" => masculine("час", "часа", "часов"),
        "мин" => feminine("минута", "минуты", "минут"),
        "сек" => feminine("секунда", "секунды", "секунд"),
        "кВт" => masculine("киловатт", "киловатта", "киловатт"),
        "ГБ" => masculine("гигабайт", "гигабайта", "гигабайт"),
        "МБ" => masculine("мегабайт", "мегабайта", "мегабайт"),
        "кБ" => masculine("килобайт", "килобайта", "килобайт"),
        "Гц" => masculine("герц", "герца", "герц"),
        "кГц" => masculine("килогерц", "килогерца", "килогерц"),
        "МГц" => masculine("мегагерц", "мегагерца", "мегагерц"),
        "°" => masculine("градус", "градуса", "градусов"),
        "°C" | "°С" => masculine("градус Цельсия", "градуса Цельсия", "градусов Цельсия"),
        _ => return None,
    })
}

/// Abbreviations with their last dot, in lower case and without spaces, and their readings.
pub(super) const ABBREVIATIONS: &[(&str, &str)] = &[
    ("т.е.", "то есть"),
    ("т.к.", "так как"),
    ("т.д.", "так далее"),
    ("т.п.", "тому подобное"),
    ("т.н.", "так называемый"),
    ("т.о.", "таким образом"),
    ("др.", "другие"),
    ("пр.", "прочее"),
    ("н.э.", "нашей эры"),
    ("до н.э.", "до нашей эры"),
    ("см.", "смотри"),
    ("ср.", "сравни"),
    ("напр.", "например"),
    ("им.", "имени"),
    ("проф.", "профессор"),
    ("акад.", "академик"),
    ("тов.", "товарищ"),
    ("ул.", "улица"),
    ("просп.", "проспект"),
    ("пер.", "переулок"),
    ("наб.", "набережная"),
    ("пл.", "площадь"),
    ("обл.", "область"),
    ("пос.", "посёлок"),
    ("кв.", "квартира"),
    ("корп.", "корпус"),
    ("д.", "дом"),
    ("г.", "город"),
    ("стр.", "страница"),
    ("гл.", "глава"),
    ("рис.", "рисунок"),
    ("табл.", "таблица"),
    ("тел.", "телефон"),
    ("тыс.", "тысяч"),
    ("млн.", "миллионов"),
    ("руб.", "рублей"),
    ("коп.", "копеек"),
];
