// Applies the theme that was chosen in this browser, if any, before anything is drawn.
try {
	document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
} catch {}
