//! Lists as aligned text tables.

use std::collections::BTreeMap;

use voxline_gateway::authority::{
    Amount, Budget, ClientEntry, ProjectEntry, ServiceTokenEntry, TokenEntry, UsageEntry,
};
use voxline_support::clock::civil;

pub(super) fn projects(entries: Vec<ProjectEntry>) -> String {
    let header =
        ["ID", "NAME", "STATE", "LANGUAGE", "CREATED", "CLIENTS", "REFRESH TOKENS", "SERVICE TOKENS"];
    let rows = entries.into_iter().map(|entry| {
        let state = if entry.active { "active" } else { "disabled" };
        let counts =
            [entry.clients, entry.refresh_tokens, entry.service_tokens].map(|count| count.to_string());
        let [clients, refresh, service] = counts;
        let language = entry.languages.map_or_else(nothing, |languages| languages.to_string());
        [entry.id, entry.name, state.to_owned(), language, time(entry.created), clients, refresh, service]
    });
    aligned(header, rows)
}

pub(super) fn clients(entries: Vec<ClientEntry>) -> String {
    let header = ["ID", "PROJECT", "CREATED", "LAST USED", "REFRESH TOKENS"];
    let rows = entries.into_iter().map(|entry| {
        let slots = entry.refresh_tokens.to_string();
        [entry.id, entry.project, time(entry.created), maybe(entry.last_used), slots]
    });
    aligned(header, rows)
}

pub(super) fn tokens(entries: Vec<TokenEntry>) -> String {
    let header = ["ID", "PROJECT", "CLIENT", "OF", "CREATED", "LAST USED", "EXPIRES", "SCOPES"];
    let rows = entries.into_iter().map(|entry| {
        let of = entry.refresh_token.unwrap_or_else(nothing);
        let times = [time(entry.created), maybe(entry.last_used), maybe(entry.expires)];
        let [created, used, expires] = times;
        [entry.id, entry.project, entry.client, of, created, used, expires, entry.scopes.to_string()]
    });
    aligned(header, rows)
}

pub(super) fn service_tokens(entries: Vec<ServiceTokenEntry>) -> String {
    let header = [
        "ID",
        "PROJECT",
        "CREATED",
        "LAST USED",
        "EXPIRES",
        "SCOPES",
        "AUDIO",
        "CHARACTERS",
        "FROM",
        "SESSIONS",
    ];
    let rows = entries.into_iter().map(|entry| {
        let terms = entry.terms;
        let networks = terms.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        [
            entry.id,
            entry.project,
            time(entry.created),
            maybe(entry.last_used),
            maybe(entry.expires),
            terms.scopes.to_string(),
            budget(terms.audio, " s"),
            budget(terms.characters, ""),
            if networks.is_empty() { nothing() } else { networks },
            terms.max_sessions.map_or_else(nothing, |count| count.to_string()),
        ]
    });
    aligned(header, rows)
}

pub(super) fn usage(entries: Vec<UsageEntry>) -> String {
    let header =
        ["ID", "PROJECT", "AUDIO TODAY", "AUDIO", "CHARACTERS TODAY", "CHARACTERS", "BY API", "LAST USED"];
    let rows = entries.into_iter().map(|entry| {
        [
            entry.id,
            entry.project,
            seconds(entry.today.audio_ms),
            seconds(entry.total.audio_ms),
            entry.today.characters.to_string(),
            entry.total.characters.to_string(),
            by_api(&entry.apis),
            time(entry.last_used),
        ]
    });
    aligned(header, rows)
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}

/// Formats the usage of each API: audio in seconds, and characters.
fn by_api(apis: &BTreeMap<String, Amount>) -> String {
    let used = apis.iter().flat_map(|(api, used)| {
        let audio = (used.audio_ms > 0).then(|| format!("{api} {}", seconds(used.audio_ms)));
        let text = (used.characters > 0).then(|| format!("{api} {} characters", used.characters));
        audio.into_iter().chain(text)
    });
    let used: Vec<String> = used.collect();
    if used.is_empty() { nothing() } else { used.join(", ") }
}

fn nothing() -> String {
    "-".to_owned()
}

/// Formats the daily and total budget.
fn budget(budget: Budget, unit: &str) -> String {
    let daily = budget.per_day.map(|limit| format!("{limit}{unit} a day"));
    let total = budget.total.map(|limit| format!("{limit}{unit} in all"));
    match (daily, total) {
        (Some(daily), Some(total)) => format!("{daily}, {total}"),
        (daily, total) => daily.or(total).unwrap_or_else(nothing),
    }
}

fn maybe(unix_ms: Option<u64>) -> String {
    unix_ms.map_or_else(nothing, time)
}

/// Formats a time in UTC as RFC 3339, to the second.
fn time(unix_ms: u64) -> String {
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Pads columns to their widest cell, except the last.
fn aligned<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_by_api() {
        let apis = BTreeMap::from([
            ("openai".to_owned(), Amount { audio_ms: 61_005, characters: 7 }),
            ("stream".to_owned(), Amount::audio(1_000)),
        ]);
        assert_eq!(by_api(&apis), "openai 61.005 s, openai 7 characters, stream 1.000 s");
        assert_eq!(by_api(&BTreeMap::new()), "-");
    }

    #[test]
    fn times_are_dates() {
        for (unix, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(unix * 1000), date);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".to_owned(), "bcd".to_owned()], ["ключ".to_owned(), "e".to_owned()]];
        assert_eq!(aligned(["ID", "X"], rows.into_iter()), "ID    X\na     bcd\nключ  e\n");
    }
}
