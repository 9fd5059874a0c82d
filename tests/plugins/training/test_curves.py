from PIL import Image

from losskit_plugins.training.curves import draw_curves


def history(steps):
    return [{"step": step, "loss": 1 / step, "part": 0.5 / step, "learning_rate": 1e-5} for step in range(1, steps)]


def colours(file):
    with Image.open(file) as image:
        return image.size, {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def test_a_picture_with_a_line_for_the_loss_and_each_component(tmp_path):
    draw_curves(history(20), {"mrr@10": 0.1}, {"mrr@10": 0.9}, tmp_path / "curves.png")
    (width, height), found = colours(tmp_path / "curves.png")
    assert width > 1000
    assert height > 800
    assert {BLUE, ORANGE} <= found


def test_panels_without_values_are_left_out(tmp_path):
    draw_curves([{"step": 1, "loss": 1.0}], {}, {}, tmp_path / "one.png")
    draw_curves(history(5), {}, {}, tmp_path / "two.png")
    (_, one), found = colours(tmp_path / "one.png")
    (_, two), _ = colours(tmp_path / "two.png")
    assert one == two < 600
    assert BLUE in found
    assert ORANGE not in found


def test_numbers_of_dimensions_have_a_panel_of_their_own(tmp_path):
    heights = []
    for metrics in ({"mrr@10": 0.5}, {"flops": 9.0, "active-dims-query": 30.0}, {"mrr@10": 0.5, "flops": 9.0}):
        draw_curves([{"step": 1, "loss": 1.0}], metrics, metrics, tmp_path / "curves.png")
        heights.append(colours(tmp_path / "curves.png")[0][1])
    # Two panels stand in one row, three in two.
    assert heights[0] == heights[1] < heights[2]


def test_nothing_logged_and_metrics_that_are_not_known_still_give_a_picture(tmp_path):
    draw_curves([], {"spearman": None}, {"spearman": 0.5}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
    draw_curves([], {}, {}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0
