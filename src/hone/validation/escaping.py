"""The view of the Data Docs: what Great Expectations puts into its pages as it is, rows among it, is escaped.

The library escapes the parameters of its templates, but not plain texts, such as the cells of the table of unexpected
values (1.24). It imports this module by its name (`hone.validation.verdicts`).
"""

from __future__ import annotations

from typing import Any

from great_expectations.render.view import DefaultJinjaPageView
from jinja2 import pass_context
from markupsafe import escape


class EscapingView(DefaultJinjaPageView):  # type: ignore[misc]
    """Pages in which every plain text is text."""

    @pass_context
    def render_content_block(self, context: Any, content_block: Any, *args: Any, **options: Any) -> Any:
        """The block as HTML; a text, or a list's element that is no block, is escaped."""
        if isinstance(content_block, str):
            return escape(content_block)
        if isinstance(content_block, list):
            content_block = [part if hasattr(part, "keys") else escape(str(part)) for part in content_block]
        return super().render_content_block(context, content_block, *args, **options)

    def render_string_template(self, template: Any) -> Any:
        """The template as HTML; a text is escaped."""
        return escape(template) if isinstance(template, str) else super().render_string_template(template)
