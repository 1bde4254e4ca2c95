//! The command line. It is short, so it is parsed by hand.

/// The text that `--help` prints.
pub const USAGE: &str = "\
usage: seedbed-benches [--quick] [FILTER..]

  --quick   fewer rounds and samples: to see that everything runs, not to quote
  FILTER    only the lines whose `section/name` contains one of the filters, such as
            `warm/`, `throughput`, `cold`, `kill/`, `payload`, `idle`, `nursery/1000-`, `memory`, `tokio`";

/// The settings of the command line.
#[derive(Debug, Default)]
pub struct Options {
    /// Take few samples, to see that everything runs.
    pub quick: bool,
    /// Print only the usage.
    pub help: bool,
    /// Set in the pinned processes that `warm_call::compare_pinned` starts.
    pub pins: Option<Pins>,
    /// Lines to measure: those whose `section/name` contains one of these strings; all lines, if
    /// there are none.
    pub filters: Vec<String>,
}

/// The cores of a pinned process and of its workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pins {
    pub caller: usize,
    pub worker: usize,
}

impl Pins {
    const OPTION: &str = "--pins=";

    /// Returns the argument that [`Options`] parses as these pins.
    pub fn to_argument(self) -> String {
        format!("{}{},{}", Pins::OPTION, self.caller, self.worker)
    }

    fn of_argument(argument: &str) -> Option<Pins> {
        let (caller, worker) = argument.strip_prefix(Pins::OPTION)?.split_once(',')?;
        let (caller, worker) = (caller.parse().ok()?, worker.parse().ok()?);
        Some(Pins { caller, worker })
    }
}

impl Options {
    /// Parses the arguments of this process.
    pub fn from_command_line() -> Result<Options, String> {
        Options::parse(std::env::args().skip(1))
    }

    fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        for argument in arguments {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--help" | "-h" => options.help = true,
                // `cargo bench` passes this to every benchmark.
                "--bench" => {}
                _ => match Pins::of_argument(&argument) {
                    Some(pins) => options.pins = Some(pins),
                    None if argument.starts_with('-') => {
                        return Err(format!("unknown option `{argument}`"));
                    }
                    None => options.filters.push(argument),
                },
            }
        }
        Ok(options)
    }

    /// Returns whether a line of `section` may be selected: by a filter that names the section or a
    /// part of it, or because there are no filters.
    pub fn wants_any_of(&self, section: &str) -> bool {
        self.wants(section, "")
            || self
                .filters
                .iter()
                .any(|filter| filter.starts_with(section))
    }

    /// Returns whether the line `name` of `section` is selected.
    pub fn wants(&self, section: &str, name: &str) -> bool {
        let full = format!("{section}/{name}");
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| full.contains(filter.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, Pins};

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn filters_match_any_part_of_section_and_name() {
        let options = parse("--bench --quick nursery/1000- tokio").unwrap();
        assert!(options.quick);
        assert!(options.wants("nursery/1000-ready", "moro"));
        assert!(options.wants("nursery/100000-ready", "tokio JoinSet"));
        assert!(!options.wants("kill", "SIGKILL + waitid"));
        assert!(parse("").unwrap().wants("kill", "anything"));
        assert!(options.wants_any_of("nursery/1000-ready"));
        assert!(!options.wants_any_of("kill"));
        assert!(
            parse("cold/spawn/procspawn")
                .unwrap()
                .wants_any_of("cold/spawn")
        );
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        assert_eq!(parse("--fast").unwrap_err(), "unknown option `--fast`");
        assert!(parse("--pins=0").is_err());
    }

    #[test]
    fn pins_come_out_of_their_own_argument() {
        let pins = Pins {
            caller: 0,
            worker: 13,
        };
        assert_eq!(parse(&pins.to_argument()).unwrap().pins, Some(pins));
    }
}
