"""The knowledge base as one file to print or to pass on: PDF of drawn pages, or HTML that needs no network."""

from __future__ import annotations

import base64
import html
import io
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from ...agent.errors import ConfigError
from ...agent.home import write_atomically
from .illustrations import PagePicture, Panel, illustrate
from .page_layout import PAGE_WIDTH_PX
from .pages import draw_pages
from .schema import KnowledgeDocument
from .sections import Section, heading, printable, sections

Progress = Callable[[str, int, int], None]
_A4_WIDTH_INCH = 8.27
_BATCH = 12
"""Documents drawn before they are written: Pillow holds every page of one call, some 4 MB each."""
_TITLE = "Defect catalogue"
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5f666d;--line:#c8ced4;--paper:#fff;--mark:#00547a;--act:#fff0d0}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#a3abb3;--line:#3a4149;--paper:#14171a;--mark:#6cc3ee;
--act:#3d3015}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:0 auto;
padding:1.5rem;overflow-wrap:anywhere}
a,dt,h2 small{color:var(--mark)}nav ul{columns:16rem;padding-left:1.2rem}
article{border-top:3px solid var(--mark);margin-top:2.5rem;padding-top:.5rem}
h2 small{display:block;font-size:.8rem;font-weight:400;text-transform:uppercase}
.pictures{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 14rem;max-width:20rem}
img{width:100%;border:1px solid var(--line)}figcaption,.note,.minor dd{color:var(--soft);font-size:.9rem}
dl{display:grid;grid-template-columns:10rem 1fr;gap:.5rem 1rem}dd{margin:0}dd ol,dd ul{margin:0;padding-left:1.3rem}
.minor{border-top:1px solid var(--line);padding-top:.5rem;font-size:.9rem}.action{background:var(--act);padding:.3rem}
@media(max-width:36rem){dl{display:block}}
@media print{:root{--ink:#000;--paper:#fff;--mark:#00547a;--act:#fff0d0;--line:#c8ced4;--soft:#444}body{padding:0}
article{break-before:page;border-top:0}figure,dd{break-inside:avoid}}
"""


def export(
    documents: Sequence[KnowledgeDocument],
    out: Path,
    pictures: Mapping[str, PagePicture] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write documents as one file, whole or not at all.

    Args:
        documents: in the order in which they appear, at least one.
        out: a path that ends in .pdf or .html.
        pictures: the documents' own, by doc_id.
        progress: called with (what, done, total).

    Raises:
        ConfigError: another ending, or a folder is in the way.
        StorageError: it cannot be written.
    """
    check_target(out)
    own = pictures or {}
    if out.suffix.lower() == ".pdf":
        write_atomically(out, lambda temporary: _write_pdf(documents, temporary, own, progress))
    else:
        write_atomically(out, lambda temporary: _write_html(documents, temporary, own, progress))


def check_target(out: Path) -> None:
    """Refuse what cannot become a catalogue.

    Raises:
        ConfigError: another ending than .pdf or .html, or a folder is in the way.
    """
    if out.suffix.lower() not in (".pdf", ".html"):
        raise ConfigError(f"the catalogue can be a .pdf or a .html file, not {printable(out.name)!r}.")
    if out.is_dir():
        raise ConfigError(f"{printable(str(out))} is a folder.", hint="Name a file.")


def _write_pdf(
    documents: Sequence[KnowledgeDocument], path: Path, pictures: Mapping[str, PagePicture], progress: Progress | None
) -> None:
    done = 0
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        pages: list[Image.Image] = []
        for document in batch:
            pages += draw_pages(document, pictures.get(document.doc_id))
            done += 1
            if progress:
                progress("drawing pages", done, len(documents))
        pages[0].save(
            path,
            "PDF",
            save_all=True,
            append_images=pages[1:],
            append=start > 0,
            resolution=PAGE_WIDTH_PX / _A4_WIDTH_INCH,
            title=_TITLE,
            producer="Flawscope",
            quality=82,
        )


def _write_html(
    documents: Sequence[KnowledgeDocument], path: Path, pictures: Mapping[str, PagePicture], progress: Progress | None
) -> None:
    path.write_text(as_html(documents, pictures, progress), encoding="utf-8")


def as_html(
    documents: Sequence[KnowledgeDocument],
    pictures: Mapping[str, PagePicture] | None = None,
    progress: Progress | None = None,
) -> str:
    """One HTML page with contents, styles and pictures inside; whatever documents hold is escaped."""
    own = pictures or {}
    articles = []
    for done, document in enumerate(documents, start=1):
        articles.append(_article(document, own.get(document.doc_id)))
        if progress:
            progress("drawing pages", done, len(documents))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # nothing of a document could load or run anything even if it were not escaped
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{_TITLE}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_TITLE}</h1>\n{_contents(documents)}\n<main>\n" + "\n".join(articles) + "\n</main>\n</body>\n</html>\n"
    )


def _contents(documents: Sequence[KnowledgeDocument]) -> str:
    parts = [f'<nav aria-label="Contents"><p>{len(documents)} documents</p>']
    titled = Counter(document.title for document in documents)
    for group, members in itertools.groupby(documents, heading):
        links = (
            f'<li><a href="#{_safe(d.doc_id)}">{_safe(d.title)}'
            f"{f' <small>{_safe(d.doc_id)}</small>' if titled[d.title] > 1 else ''}</a></li>"
            for d in members
        )
        parts.append(f"<h2>{_safe(group).capitalize()}</h2>\n<ul>{''.join(links)}</ul>")
    return "\n".join([*parts, "</nav>"])


def _article(document: KnowledgeDocument, picture: PagePicture | None) -> str:
    illustration = illustrate(document, picture)
    title = _safe(document.title)
    figures = "".join(_figure(panel, document.title) for panel in illustration.panels)
    parts = [f'<article id="{_safe(document.doc_id)}">', f"<h2><small>{_safe(heading(document))}</small>{title}</h2>"]
    if document.description:
        parts.append(f"<p>{_safe(document.description)}</p>")
    if figures:
        parts.append(f'<div class="pictures">{figures}</div>')
    if illustration.note:
        parts.append(f'<p class="note">{_safe(illustration.note)}</p>')
    found = sections(document)
    parts.append(f"<dl>{''.join(_entry(section) for section in found if not section.minor)}</dl>")
    parts.append(f'<dl class="minor">{"".join(_entry(section) for section in found if section.minor)}')
    parts.append(f"<dt>Document</dt><dd>{_safe(document.doc_id)} {document.content_hash()[:12]}</dd></dl>")
    return "\n".join([*parts, "</article>"])


def _entry(section: Section) -> str:
    tag = {"numbered": "ol", "bullets": "ul"}.get(section.kind)
    if tag:
        text = f"<{tag}>" + "".join(f"<li>{_safe(item)}</li>" for item in section.items) + f"</{tag}>"
    else:
        text = " ".join(map(_safe, section.items))
    kind = ' class="action"' if section.kind == "action" else ""
    return f"<dt>{_safe(section.label)}</dt><dd{kind}>{text}</dd>\n"


def _figure(panel: Panel, title: str) -> str:
    packed = io.BytesIO()
    Image.fromarray(panel.rgb).save(packed, "JPEG", quality=85)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    height, width = panel.rgb.shape[:2]
    alt = _safe(f"{title}: {panel.caption}")
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{alt}">'
        f"<figcaption>{_safe(panel.caption)}</figcaption></figure>"
    )


def _safe(text: str) -> str:
    return html.escape(printable(text), quote=True)
