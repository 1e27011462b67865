"""The look of Gradio's own parts: colours, type, spacing. The rest is in static/styles.

The font is Source Sans Pro, which ships with Gradio, so that the page asks no other host for anything. Of the fonts in
Gradio 6.31 only some files hold Latin letters; Source Sans 3 and the semi-bold ones do not.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils.colors import Color
from gradio.themes.utils.fonts import LocalFont

# A neutral colour, so that the pictures stand out, and one accent for focus, links and progress.
_NEUTRAL = Color(
    name="ink",
    c50="#fbfbfa",
    c100="#f4f4f2",
    c200="#e6e6e2",
    c300="#d2d2cd",
    c400="#9b9b98",
    c500="#73736f",
    c600="#5b5b58",
    c700="#3d3d3c",
    c800="#262627",
    c900="#1c1c1e",
    c950="#131315",
)
_ACCENT = Color(
    name="cobalt",
    c50="#eef1ff",
    c100="#dfe4ff",
    c200="#c3ccff",
    c300="#a3b1ff",
    c400="#7f90fa",
    c500="#5569ee",
    c600="#3648d6",
    c700="#2c3ab0",
    c800="#27338c",
    c900="#242f70",
    c950="#171d45",
)


_STYLES = Path(__file__).parent / "static" / "styles"
# In this order: later files override earlier ones.
_STYLE_SHEETS = ("page.css", "result.css", "library.css", "narrow.css", "models.css", "noise.css")


def studio_theme() -> gr.themes.Base:
    """Return the theme with the studio's style sheets.

    A theme's style sheet arrives before the page, also before the login page, and Gradio leaves its selectors as they
    are. It would rewrite those of `launch(css=...)`.
    """
    theme = gr.themes.Base(
        primary_hue=_ACCENT,
        secondary_hue=_NEUTRAL,
        neutral_hue=_NEUTRAL,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
        font=[LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    )
    theme.custom_css = "".join((_STYLES / name).read_text("utf-8") for name in _STYLE_SHEETS)
    return theme.set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="#ededeb",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="#a5a5a2",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#313133",
        border_color_accent="*primary_600",
        border_color_accent_dark="*primary_300",
        color_accent="*primary_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="*primary_950",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="#a5a5a2",
        block_title_text_weight="400",
        block_title_text_size="*text_sm",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="#a5a5a2",
        panel_background_fill="transparent",
        form_gap_width="0px",
        layout_gap="*spacing_xl",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        input_border_color="#94948f",
        input_border_color_dark="#6a6a6c",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_300",
        input_shadow="none",
        input_shadow_focus="0 0 0 3px rgb(54 72 214 / 18%)",
        input_shadow_focus_dark="0 0 0 3px rgb(163 177 255 / 25%)",
        input_placeholder_color="#73736f",
        input_placeholder_color_dark="#8b8b88",
        slider_color="*neutral_900",
        slider_color_dark="#ededeb",
        button_primary_background_fill="*neutral_900",
        button_primary_background_fill_hover="*neutral_700",
        button_primary_background_fill_dark="#ededeb",
        button_primary_background_fill_hover_dark="#ffffff",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="*neutral_950",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="#94948f",
        button_secondary_border_color_dark="#6a6a6c",
        button_secondary_text_color="*neutral_900",
        button_secondary_text_color_dark="#ededeb",
        button_large_text_weight="700",
        button_transition="background-color 120ms ease, opacity 120ms ease",
        button_secondary_shadow="none",
        button_primary_shadow="none",
    )
