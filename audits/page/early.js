// Before anything is painted: the colours that the link or the system asks for.
{
  const asked = new URLSearchParams(location.hash.slice(1)).get("theme");
  const dark = asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}
