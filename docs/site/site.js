// Summaries of search results are fetched, which a browser refuses where the site is opened as a file.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// Both sidebars are landmarks: the second one says which it is.
document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");

// Whatever is wider than the screen is moved with the arrow keys too, once it has the focus.
function reachable() {
  for (const box of document.querySelectorAll("pre, .table-wrapper, td, .text_html, mjx-container[display]")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
