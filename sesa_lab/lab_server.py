"""What ``sesa-lab lab`` adds to Jupyter's server: notebooks are saved without the pictures that JupyterLab makes of our figures.

JupyterLab's plotly renderer stores a picture of a tenth of a megabyte and more beside every figure that it draws, and then shows
that instead when the notebook is opened, until the mouse is over it. A figure alone is smaller and is drawn at once.
"""

from __future__ import annotations

from typing import Any

FIGURE, PICTURE = "application/vnd.plotly.v1+json", "image/png"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "sesa_lab.lab_server"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Jupyter's server calls this when it begins."""
    app.contents_manager.register_pre_save_hook(without_pictures)


def without_pictures(model: Any, **unused: Any) -> None:
    """Drop the pictures of figures from what is about to be saved; other pictures stay.

    Args:
        model: as Jupyter's contents managers have it; changed in place. What is no notebook is left alone.
        **unused: the path and who saves.
    """
    content = model.get("content")
    if model.get("type") != "notebook" or not isinstance(content, dict):
        return
    for cell in content.get("cells", []):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if FIGURE in data:
                data.pop(PICTURE, None)
