//! Reads resources from a configuration file.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::error::SetupError;
use crate::resource::{Amount, Memory, Resources};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    resources: Entries,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    cores: Option<Spanned<toml::Value>>,
    memory: Option<Spanned<toml::Value>>,
    wall_time: Option<Spanned<toml::Value>>,
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    amounts: BTreeMap<String, Spanned<toml::Value>>,
    #[serde(default)]
    units: BTreeMap<String, Vec<String>>,
}

pub(super) fn read(path: &Path) -> Result<Resources, SetupError> {
    let text = fs::read_to_string(path).map_err(|error| SetupError::unreadable(path, error))?;
    parse(&text, Resources::local()).map_err(|fault| {
        let at = fault.span.map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        SetupError::wrong(path, line, fault.message)
    })
}

/// An error in the text, and its place.
struct Fault {
    span: Option<Range<usize>>,
    message: String,
}

/// Changes `local` to what the text says.
fn parse(text: &str, local: Resources) -> Result<Resources, Fault> {
    let file: File = toml::from_str(text).map_err(|error| Fault {
        span: error.span(),
        message: error.message().to_owned(),
    })?;
    let entries = file.resources;
    let mut resources = local;
    if let Some(cores) = &entries.cores {
        let numbers = checked("cores", cores, |value| choose_cores(value, &resources))?;
        resources = resources.cores(numbers);
    }
    if let Some(memory) = &entries.memory {
        resources = resources.memory(checked("memory", memory, memory_of)?);
    }
    if let Some(time) = &entries.wall_time {
        resources = resources.wall_time(checked("wall_time", time, time_of)?);
    }
    for (name, amount) in &entries.amounts {
        resources = resources.amount(name, checked(name, amount, amount_of)?);
    }
    for (kind, names) in &entries.units {
        resources = resources.units(kind, names);
    }
    let tokens = entries.tokens.iter();
    Ok(tokens.fold(resources, |resources, token| resources.token(token)))
}

/// Converts the value of a key. `convert` returns what would be right if the value is not.
fn checked<T>(
    key: &str,
    value: &Spanned<toml::Value>,
    convert: impl FnOnce(&toml::Value) -> Result<T, String>,
) -> Result<T, Fault> {
    convert(value.get_ref()).map_err(|right| Fault {
        span: Some(value.span()),
        message: format!("the value of `{key}` is wrong: {right}"),
    })
}

fn choose_cores(value: &toml::Value, local: &Resources) -> Result<Vec<usize>, String> {
    let available = local.core_numbers();
    let right = "write a number of cores, or a list of their numbers, as in `[0, 1]`";
    match value {
        toml::Value::Integer(count) => {
            let count = usize::try_from(*count).map_err(|_| right.to_owned())?;
            let chosen = available.get(..count).ok_or_else(|| {
                format!(
                    "this process may use {} cores; write at most that",
                    available.len()
                )
            })?;
            Ok(chosen.to_vec())
        }
        toml::Value::Array(numbers) => {
            let number = |value: &toml::Value| {
                let number = value
                    .as_integer()
                    .and_then(|number| usize::try_from(number).ok());
                number.ok_or_else(|| right.to_owned())
            };
            let numbers = numbers.iter().map(number).collect::<Result<Vec<_>, _>>()?;
            match numbers.iter().find(|number| !available.contains(number)) {
                None => Ok(numbers),
                Some(missing) => Err(format!(
                    "this process may not use core {missing}; it has the cores {available:?}"
                )),
            }
        }
        _ => Err(right.to_owned()),
    }
}

/// Reads an amount of memory, as in `16 GiB`.
fn memory_of(value: &toml::Value) -> Result<Memory, String> {
    let right =
        "write an amount with its unit, as in `\"16 GiB\"`, `\"512 MiB\"` or `\"4096 bytes\"`";
    let parse = || {
        let text = value.as_str()?.trim();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let number: u64 = number.parse().ok()?;
        let shift = match unit.trim() {
            "bytes" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Memory::bytes)
    };
    parse().ok_or_else(|| right.to_owned())
}

/// Reads a time, as in `1-12:30:00`, or a number of seconds.
fn time_of(value: &toml::Value) -> Result<Duration, String> {
    let right = "write a number of seconds, or a text such as `\"12:30:00\"` or `\"1-12:30:00\"`";
    let parse = || {
        if let Some(seconds) = value.as_integer() {
            return u64::try_from(seconds).ok().map(Duration::from_secs);
        }
        let text = value.as_str()?;
        let (days, clock) = text.split_once('-').unwrap_or(("0", text));
        let fields: Vec<u64> = clock
            .split(':')
            .map(|field| field.parse().ok())
            .collect::<Option<_>>()?;
        let &[hours, minutes @ 0..60, seconds @ 0..60] = &fields[..] else {
            return None;
        };
        let hours = days
            .parse::<u64>()
            .ok()?
            .checked_mul(24)?
            .checked_add(hours)?;
        let seconds = hours
            .checked_mul(3600)?
            .checked_add(60 * minutes + seconds)?;
        Some(Duration::from_secs(seconds))
    };
    parse().ok_or_else(|| right.to_owned())
}

fn amount_of(value: &toml::Value) -> Result<Amount, String> {
    let number = match value {
        toml::Value::Integer(number) => *number as f64,
        toml::Value::Float(number) => *number,
        _ => f64::NAN,
    };
    if (0.0..=1e15).contains(&number) {
        Ok(Amount::share(number))
    } else {
        Err("write a number that is not negative".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four_cores() -> Resources {
        Resources::none().cores([0, 1, 4, 5]).memory(Memory::gib(8))
    }

    fn fault(text: &str) -> (usize, String) {
        let Err(fault) = parse(text, four_cores()) else {
            panic!("a wrong text was accepted");
        };
        let at = fault.span.expect("a fault has a place").start;
        (text[..at].matches('\n').count() + 1, fault.message)
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let text = "[resources]\ncores = 2\nwall_time = \"1-12:00:30\"\ntokens = [\"internet\"]\n\
                    [resources.amounts]\nlicences = 2.5\n[resources.units]\ngpus = [\"a\", \"b\"]\n";
        let resources = parse(text, four_cores()).ok().unwrap();
        assert_eq!(resources.core_numbers(), [0, 1]);
        assert_eq!(resources.time(), Some(Duration::from_secs(36 * 3600 + 30)));
        let debug = format!("{resources:?}");
        assert!(
            ["memory", "internet", "licences", "gpus"]
                .iter()
                .all(|name| debug.contains(name))
        );
        let listed = parse("[resources]\ncores = [5, 0]", four_cores())
            .ok()
            .unwrap();
        assert_eq!(listed.core_numbers(), [5, 0]);
        assert_eq!(
            parse("", four_cores()).ok().unwrap().core_numbers().len(),
            4
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
        let (line, message) = fault("[resources]\nmemory = \"1 GiB\"\ncoers = 2\n");
        assert_eq!(line, 3);
        assert!(
            message.contains("coers") && message.contains("`cores`"),
            "{message}"
        );
        let (line, message) = fault("\n[resource]\n");
        assert_eq!(line, 2);
        assert!(message.contains("`resources`"), "{message}");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_would_be_right() {
        let wrong = [
            ("cores = 5", "may use 4 cores"),
            ("cores = [2]", "may not use core 2"),
            ("cores = \"all\"", "a list of their numbers"),
            ("memory = 16", "`\"16 GiB\"`"),
            ("memory = \"16 GB\"", "`\"16 GiB\"`"),
            ("wall_time = \"90:00\"", "`\"12:30:00\"`"),
            ("wall_time = \"1:60:00\"", "`\"12:30:00\"`"),
            ("amounts = { licences = -1 }", "`licences`"),
            ("tokens = 3", "expected a sequence"),
        ];
        for (entry, right) in wrong {
            let (line, message) = fault(&format!("[resources]\n{entry}\n"));
            assert!(
                line == 2 && message.contains(right),
                "{entry}: {line}: {message}"
            );
        }
    }

    #[test]
    fn amounts_of_memory_have_units() {
        let memory = |text: &str| memory_of(&toml::Value::String(text.into())).unwrap();
        assert_eq!(memory("16 GiB"), Memory::gib(16));
        assert_eq!(memory("3MiB"), Memory::mib(3));
        assert_eq!(memory(" 7 bytes "), Memory::bytes(7));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.toml");
        assert!(read(&path).unwrap_err().to_string().contains("none.toml"));
        fs::write(&path, "[resources]\n\nmemory = 3").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(
            message.contains("none.toml, line 3: the value of `memory` is wrong"),
            "{message}"
        );
    }
}
