//! An item of the crate, and what its docs contain.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A free function, a method, or a function of a type.
    Function,
    /// A struct, an enum, a trait or an alias.
    Type,
    Macro,
}

/// An item that is declared `pub`.
#[derive(Debug)]
pub struct Item {
    pub kind: Kind,
    pub file: String,
    pub line: usize,
    /// `function` or `Type::method`.
    pub name: String,
    /// The doc comments, one line each.
    pub docs: String,
    /// The names in the return type of a function; for an `async fn`, also `Future`.
    pub returns: Vec<String>,
    /// Whether the function's body contains a `panic!` or an `assert!`.
    pub panics: bool,
}

impl Item {
    /// The name under which it can be re-exported.
    pub fn exported_name(&self) -> &str {
        self.name
            .split("::")
            .next()
            .expect("a split has a first part")
    }

    /// Returns the code blocks of the docs that are run.
    pub fn example(&self) -> Option<String> {
        let mut run = String::new();
        let mut found = false;
        for (number, part) in self.docs.split("```").enumerate() {
            let (info, code) = part.split_once('\n').unwrap_or((part, ""));
            let is_run = !["text", "ignore", "no_run", "compile_fail", "sh"]
                .iter()
                .any(|word| info.contains(word));
            if number % 2 == 1 && is_run {
                found = true;
                run.push_str(code);
            }
        }
        found.then_some(run)
    }

    /// Returns whether the docs link to the function that returns this type, whose example covers
    /// it. The docs of a type that a macro declares under an argument's name are among the macro's
    /// arguments.
    pub fn is_made_elsewhere(&self) -> bool {
        let links = [
            "made by [",
            "returned by [",
            "by awaiting [",
            "from [",
            "given to the ",
        ];
        // A phrase may be broken between two lines.
        let docs = self.docs.to_lowercase();
        let docs = docs.split_whitespace().collect::<Vec<_>>().join(" ");
        links.iter().any(|link| docs.contains(link)) || self.name == "$name"
    }

    pub fn has_section(&self, title: &str) -> bool {
        let heading = format!("# {title}");
        self.docs.lines().any(|line| line.trim() == heading)
    }
}
