"""What the site's Markdown has besides Markdown's: equations and doctests.

`.. math::` in docstrings and ```math in pages become MathML, which needs no script; `>>>` becomes a block of code.
"""

import re
import textwrap
from xml.etree import ElementTree

import latex2mathml.converter
from markdown import Extension
from markdown.preprocessors import Preprocessor
from mkdocs.exceptions import PluginError

FENCED = re.compile(r"^```math\n(?P<tex>.*?)^```$", re.DOTALL | re.MULTILINE)
# The rest of the line, or the indented lines that follow.
DIRECTIVE = re.compile(
    r"^(?P<indent> *)\.\. math::(?P<tex>[^\n]*(?:\n(?:(?P=indent) +[^\n]*|\s*(?=\n(?P=indent) +)))*)", re.MULTILINE
)
DOCTEST = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).+)*", re.MULTILINE)


def to_mathml(tex: str) -> str:
    """An equation as a block of MathML. Several lines are aligned at their ampersands, as Sphinx has it."""
    tex = textwrap.dedent(tex).strip()
    if "&" in tex or r"\\" in tex:
        tex = rf"\begin{{align*}}{tex}\end{{align*}}"
    mathml = latex2mathml.converter.convert(tex, display="block")
    ElementTree.fromstring(mathml)  # raises, and stops the build, unless it is well-formed
    return mathml


class Equations(Preprocessor):
    """Replaces equations before anything else reads their backslashes, and fences doctests."""

    def run(self, lines: list[str]) -> list[str]:
        """The page with placeholders for its equations."""

        def replace(found: re.Match[str]) -> str:
            return f"\n\n{self.md.htmlStash.store(to_mathml(found['tex']))}\n\n"

        text = DIRECTIVE.sub(replace, FENCED.sub(replace, "\n".join(lines)))
        return DOCTEST.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", text).split("\n")


class EquationsExtension(Extension):
    """The above as a Markdown extension."""

    def extendMarkdown(self, md) -> None:
        """Goes after whitespace is normalised and before fenced code, which would take ```math for a language."""
        md.preprocessors.register(Equations(md), "equations", 28)


def on_config(config):
    """Adds the extension to pages and docstrings alike."""
    config.markdown_extensions.append(EquationsExtension())
    return config


def on_post_page(output, page, config):
    """Stops the build where Markdown lost an equation: its placeholder is left then."""
    if "wzxhzdk:" in output:
        raise PluginError(f"{page.file.src_uri}: an equation is lost")
    return output
