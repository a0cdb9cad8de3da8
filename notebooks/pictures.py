"""Write the pictures of the notebooks that the README shows: `python notebooks/pictures.py`.

They are taken from the outputs of the notebooks: the picture of a notebook is that of its cell
tagged `readme`.
"""

import base64
import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parent
FOLDER = NOTEBOOKS.parent / ".github" / "images" / "notebooks"


def picture(notebook):
    """The PNG of the cell tagged `readme`, bytes."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    (cell,) = (cell for cell in cells if "readme" in cell["metadata"].get("tags", ()))
    data = [output["data"] for output in cell["outputs"] if "data" in output]
    return base64.b64decode(next(item["image/png"] for item in data if "image/png" in item))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        (FOLDER / f"{notebook.stem}.png").write_bytes(picture(notebook))
