// Before anything is drawn: the theme that was chosen here, if one was.
try {
	document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
} catch {}
