//! The curves of a run that goes on in another process: a script in the page reads its files from Jupyter's own file server.

use super::Html;
use crate::bench::report::escape;
use crate::phases::background::Background;

/// Draws the curves into the element that the page gives it; see the file's own head.
const SCRIPT: &str = include_str!("live.js");

/// The curves so far, and the script that keeps them up to date. Where scripts do not run, a line says where the run is.
pub(super) fn curves(run: &Background) -> Html {
    let folder = run.folder.strip_prefix(&run.root).unwrap_or(&run.folder);
    let folder = folder.display().to_string();
    Html(format!(
        "<div class=\"codelora-live\" data-folder=\"{}\" data-steps=\"{}\"><p>The curves of the run <i>{}</i> grow here while \
         it trains, where Jupyter serves this page.</p></div><script>{SCRIPT}</script>",
        escape(&folder),
        run.steps,
        escape(&run.name),
    ))
}
