//! The command line: few words, so it is read by hand.

/// What `--help` prints.
pub const USAGE: &str = "\
usage: seedbed-benches [--quick] [FILTER..]

  --quick   fewer rounds and samples: to see that everything runs, not to quote
  FILTER    only the lines whose `section/name` contains one of the filters, such as
            `warm`, `nursery/1000-`, `kill`, `primitives`, `memory`, `tokio`";

/// What the command line asks for.
#[derive(Debug, Default)]
pub struct Options {
    /// Few samples, to see that everything runs.
    pub quick: bool,
    /// Only print the usage.
    pub help: bool,
    /// This process is the pinned one that `warm_call::compare_on_one_core` starts.
    pub on_core: Option<usize>,
    /// Lines to measure: those whose `section/name` contains one of these; all, when there are none.
    pub filters: Vec<String>,
}

impl Options {
    /// Reads the process's own arguments.
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
                _ => match argument.strip_prefix("--on-core=") {
                    Some(core) => {
                        let core = core.parse().map_err(|e| format!("{argument}: {e}"))?;
                        options.on_core = Some(core);
                    }
                    None if argument.starts_with('-') => {
                        return Err(format!("unknown option `{argument}`"));
                    }
                    None => options.filters.push(argument),
                },
            }
        }
        Ok(options)
    }

    /// Says whether the line `name` of `section` is asked for.
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
    use super::Options;

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
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        assert_eq!(parse("--fast").unwrap_err(), "unknown option `--fast`");
        assert!(parse("--on-core=x").is_err());
    }
}
