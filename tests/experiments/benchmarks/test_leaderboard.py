import shutil

from data_modules import protocols
from experiments.benchmarks.leaderboard import PAGE, write
from experiments.results import Cell
from tests import sweeps


def test_the_page_gets_a_block_of_each_folder(tmp_path):
    written, page = tmp_path / "results", tmp_path / "leaderboard.md"
    clips = sweeps.clip_table({"smic": 3, "samm": 2}, 6, protocols.protocol("megc2019").classes, coded=())
    sweeps.write_cell(Cell(written, "smic", "megc2019", "loso", "hsta", "0123456789ab"), clips, 1, 1.0)
    shutil.copy(PAGE, page)
    for _ in range(2):  # the second time in place of the first
        write([f"flow_maps={written}", f"flow_maps_2={written}"], page)
    before, first, second = page.read_text().split("<!-- written by python -m experiments.benchmarks.leaderboard ")
    own = PAGE.read_text().split("<!-- written by python -m experiments.benchmarks.leaderboard ")
    assert before == own[0] and first.startswith("flow_maps -->") and second.startswith("flow_maps_2 -->")
    for block in (first, second):
        assert block.count("#### Leaderboard") == 1 and block.count("| hsta (") == 2
