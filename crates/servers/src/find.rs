//! Search for the programs of a server.

use std::env;
use std::path::{Path, PathBuf};

/// Searches for the program in four places and returns the first one found. The places are: the path that `variable`
/// names; `.tools/` beside any folder above this program; the search path; and `elsewhere`. `make setup` puts programs
/// into `.tools/` of a checkout.
///
/// A variable that is set decides alone: an operator who names a server does not want another one.
pub(crate) fn program(
    variable: &str,
    in_tools: &str,
    name: &str,
    elsewhere: Vec<PathBuf>,
    variable_names: VariableNames,
) -> Option<PathBuf> {
    if let Some(named) = env::var_os(variable).filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        let path = match variable_names {
            VariableNames::Folder => named.join(name),
            VariableNames::Program => named,
        };
        return path.is_file().then_some(path);
    }
    let program = env::current_exe().ok();
    let in_tools = program
        .iter()
        .flat_map(|program| program.ancestors())
        .map(|folder| folder.join(".tools").join(in_tools).join(name));
    let search_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&search_path).map(|folder| folder.join(name));
    in_tools
        .chain(on_path)
        .chain(elsewhere.into_iter().map(|folder| folder.join(name)))
        .find(|path| path.is_file())
}

/// Kinds of path that an environment variable names.
pub(crate) enum VariableNames {
    /// The folder of the programs.
    Folder,
    /// The program itself.
    Program,
}

/// Returns `/usr/lib/postgresql/*/bin`, newest version first.
pub(crate) fn debian_postgres_folders() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(Path::new("/usr/lib/postgresql"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, folder)| folder).collect()
}
