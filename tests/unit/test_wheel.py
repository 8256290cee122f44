import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_the_console_and_the_bundled_model(tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    console = {f"api/console/{path.name}" for path in (ROOT / "api" / "console").iterdir()}
    assert len(console) > 10
    assert console <= names
    assert any(name.endswith(".gguf") for name in names)
