"""Near codes are duplicates only if the images are copies: by bytes, pictures or features."""

import hashlib
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.gallery_codes import draw_clustered, write_codes
from support.pictures import picture_difference, picture_of, saved
from support.users import Run

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.retrieval.duplicates import evidence, nearest, verify
from schn_ray.retrieval.duplicates.bands import Band
from schn_ray.retrieval.duplicates.evidence import Evidence, Verification
from schn_ray.retrieval.duplicates.groups import find_duplicates
from schn_ray.retrieval.duplicates.partitions import find_duplicates_in_parts
from schn_ray.retrieval.duplicates.thumbnails import LIMIT, thumbnail, whole_vectors
from schn_ray.retrieval.duplicates.verify import row_pairs, verified_labels
from schn_ray.retrieval.index.build import write_index


def changed(image: Image.Image) -> dict[str, bytes]:
    width, height = image.size
    brighter = image.point(lambda value: value * 0.8 + 40)
    return {
        "half": saved(image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)),
        "larger": saved(image.resize((2 * width, 2 * height), Image.Resampling.BICUBIC)),
        "squeezed": saved(image.resize((width, width), Image.Resampling.BICUBIC)),
        "jpeg": saved(image, "JPEG", quality=40),
        "mirrored": saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "cropped": saved(image.crop((5, 2, width - 4, height - 5))),
        "brighter": saved(brighter),
    }


def test_changed_pictures_look_the_same_and_others_do_not() -> None:
    for seed in range(8):
        original = saved(picture_of(seed))
        for kind, copy in changed(picture_of(seed)).items():
            assert picture_difference(original, copy) <= LIMIT, kind
        assert picture_difference(original, saved(picture_of(seed + 100))) > 10 * LIMIT
        upside_down = picture_of(seed).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        assert picture_difference(original, saved(upside_down)) > 10 * LIMIT


def test_a_vector_is_the_cosine_transform() -> None:
    from scipy.fft import dctn

    pixels = thumbnail(saved(picture_of(3, 24, 24)))  # as large as a thumbnail: no pixel is changed
    luma = np.asarray(picture_of(3, 24, 24).convert("YCbCr"))[..., 0].astype(float)
    expected = dctn(luma, type=2)[:8, :8].ravel()[1:]
    ours = whole_vectors(pixels[None])[0][0, :63]
    # a pixel is a square here and a point there, which differ by a factor near 1 for each frequency
    cosine = ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("bits", "radius"), [(12, 3), (32, 2), (64, 9)])
def test_row_pairs_are_all_pairs_once(
    bits: int, radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_PAIRS_AT_ONCE", 50)
    if bits > 12:  # for so few codes, none would be chosen
        half = bits // 2
        bands = [Band(0, half, min(half, 8), radius // 2), Band(half, bits, 8, -(-radius // 2) - 1)]
        monkeypatch.setattr(nearest, "choose_bands", lambda *_: bands)
    rng = np.random.default_rng(bits)
    codes = draw_clustered(rng, 150, bits, 20, 0.03)
    others = np.concatenate([codes[:40], draw_clustered(rng, 60, bits, 5, 0.1)])
    pairs = list[tuple[int, int, int]]()
    for part in row_pairs(codes, others, bits, radius):
        pairs += zip(*(column.tolist() for column in part), strict=True)
    apart = np.bitwise_count(codes[:, None] ^ others).sum(axis=2)
    near = np.argwhere(apart <= radius)
    assert sorted(pairs) == [(int(i), int(j), int(apart[i, j])) for i, j in near]


def test_groups_are_chains_of_verified_pairs() -> None:
    rng = np.random.default_rng(0)
    codes = draw_clustered(rng, 200, 32, 8, 0.03)
    vectors = rng.normal(size=(25, 6))[rng.integers(0, 25, 200)] + rng.normal(size=(200, 6)) / 40
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    contents = np.zeros((200, 16), np.uint8)
    contents[:60, 0] = rng.integers(0, 40, 60)  # 0 is not known, and equal to nothing
    usable = rng.random(200) < 0.9
    for row in range(60):  # of equal bytes, all else is equal
        same = int(np.flatnonzero(contents[:60, 0] == contents[row, 0])[0])
        if contents[row, 0]:
            vectors[row], usable[row] = vectors[same], usable[same]
            codes[row] = codes[same]
    known = Evidence(contents, 0.01, vectors=vectors, usable=usable)
    graph = nx.empty_graph(200)
    for i in range(200):
        for j in range(i):
            same = contents[i, 0] == contents[j, 0] != 0
            near = np.bitwise_count(codes[i] ^ codes[j]).sum() <= 3 and usable[i] and usable[j]
            if same or (near and 1 - vectors[i] @ vectors[j] <= 0.01):
                graph.add_edge(i, j)
    labels = verified_labels(codes, 32, 3, known)
    ours = {frozenset(np.flatnonzero(labels == label).tolist()) for label in labels}
    assert ours == set(map(frozenset, nx.connected_components(graph)))
    assert 20 < len(ours) < 180


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Write 30 images of one class, whose codes are equal; some are copies, one is damaged."""
    images = {f"{seed:02}": saved(picture_of(seed)) for seed in range(30)}
    images |= {f"03-{kind}": copy for kind, copy in changed(picture_of(3)).items()}
    images["03-jpeg-again"] = images["03-jpeg"]
    images["05-again"] = images["05"]
    images["07-damaged"] = images["07"]
    images["08-damaged"] = images["08"][:300]
    images["black"] = saved(Image.new("RGB", (40, 40)))
    images["blacker"] = saved(Image.new("RGB", (60, 40)))
    (tmp_path / "photos").mkdir()
    paths = [tmp_path / "photos" / f"{id}.png" for id in images]
    for path, data in zip(paths, images.values(), strict=True):
        path.write_bytes(data)
    (tmp_path / "photos" / "07-damaged.png").write_bytes(b"damaged since it was encoded")
    (tmp_path / "photos" / "05.png").write_bytes(saved(picture_of(70)))  # so are its bytes other
    write_codes(
        tmp_path / "codes",
        list(images),
        np.zeros((len(images), 1), np.uint8),
        8,
        uris=[str(path) for path in paths],
        sha256=[hashlib.sha256(data).digest() for data in images.values()],
    )
    return tmp_path


THREE = sorted(["03", *(f"03-{kind}" for kind in [*changed(picture_of(3)), "jpeg-again"])])
FIVE, SEVEN = ["05", "05-again"], ["07", "07-damaged"]


def groups_in(file: Path) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for row in pq.read_table(file).to_pylist():
        groups.setdefault(row["group"], []).append(row["id"])
    return list(groups.values())


def test_a_class_of_one_code_is_not_a_group_of_duplicates(gallery: Path, schn_ray: Run) -> None:
    out = gallery / "groups.parquet"
    answer = schn_ray("duplicates", gallery / "codes", "--out", out)
    assert answer.code == 0, answer.err
    assert groups_in(out) == [THREE, FIVE, SEVEN]
    assert "3 groups of near-duplicates, the largest of 9" in answer.out
    assert "43 images with near codes, 1 of which could not be verified" in answer.out
    assert "warning: codes within 0 bits connect 43 of 43 images" in answer.out
    assert "only 1 distinct codes: the codes have collapsed" in answer.out
    rows = {row["id"]: row for row in pq.read_table(out).to_pylist()}
    assert rows["03"]["verified"] is rows["03"]["difference"] is None  # the first itself
    assert rows["05-again"]["verified"] == rows["07-damaged"]["verified"] == "bytes"
    assert {rows[id]["verified"] for id in THREE[1:]} == {"perceptual"}
    assert 0 < rows["03-jpeg"]["difference"] < LIMIT


def test_the_same_groups_from_an_index_and_in_parts(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, out = (
        gallery / "codes",
        [gallery / f"{name}.parquet" for name in ("one", "two", "three")],
    )
    write_index(codes, gallery / "index")
    counts = find_duplicates(codes, 0, out[0], "best", Verification("perceptual"))
    monkeypatch.setattr(evidence, "_IMAGES_AT_ONCE", 5)

    def backwards(function: Any, shards: Any) -> Any:
        return reversed(list(map_locally(function, shards)))

    by_many = Verification("perceptual", map_shards=backwards)
    assert find_duplicates_in_parts(codes, 0, out[1], "best", by_many) == counts
    assert find_duplicates(gallery / "index", 0, out[2], "best", by_many) == counts
    tables = [pq.read_table(path) for path in out]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert (gallery / "one.keep.txt").read_text().split() == ["03-larger", "05", "07"]
    assert counts.removable == 10


def test_bytes_alone_read_no_image(gallery: Path) -> None:
    for path in (gallery / "photos").iterdir():
        path.unlink()
    out = gallery / "groups.parquet"
    counts = schn_ray.duplicates(gallery / "codes", out, verify="bytes").counts
    assert groups_in(out) == [["03-jpeg", "03-jpeg-again"], FIVE, SEVEN]
    assert counts.unverified == 0
    with pytest.raises(SchnRayError, match="none of the 43 images with near codes can be read"):
        schn_ray.duplicates(gallery / "codes", out)
    unknown = write_codes(gallery / "old", ["a", "b"], np.zeros((2, 1), np.uint8), 8)
    with pytest.raises(SchnRayError, match="do not say what bytes they were made of"):
        schn_ray.duplicates(unknown, out, verify="bytes")


def test_without_verification_they_are_not_called_duplicates(gallery: Path, schn_ray: Run) -> None:
    out, page = gallery / "groups.parquet", gallery / "page.html"
    answer = schn_ray(
        "duplicates", gallery / "codes", "--out", out, "--verify", "none", "--html", page
    )
    assert groups_in(out) == [sorted(row["id"] for row in pq.read_table(out).to_pylist())]
    assert "1 groups of near codes, the largest of 43" in answer.out
    assert "not verified by the images" in answer.out
    assert "use --verify perceptual" in answer.out
    html = page.read_text()
    assert "<h1>Images of near codes</h1>" in html
    assert "may just be of one class" in html


def test_images_of_another_gallery(gallery: Path) -> None:
    train = write_gallery(
        gallery / "train", {"a": picture_of(3), "b": picture_of(50), "c": picture_of(5)}, [0, 0, 1]
    )
    out, page = gallery / "leaks.parquet", gallery / "leaks.html"
    result = schn_ray.duplicates(train, out, radius=1, against=gallery / "codes", html=page)
    rows = pq.read_table(out).to_pylist()
    assert [(row["id"], row["against_id"], row["distance"], row["verified"]) for row in rows] == [
        ("a", "03", 0, "bytes"),
        ("c", "05", 1, "bytes"),
    ]
    assert (result.counts.matched, result.counts.candidates) == (2, 3)
    assert page.read_text().count("same bytes") == 2


def write_gallery(folder: Path, images: dict[str, Image.Image], codes: list[int]) -> Path:
    folder.mkdir()
    for id, image in images.items():
        image.save(folder / f"{id}.png")
    uris = [str(folder / f"{id}.png") for id in images]
    packed = np.array(codes, np.uint8)[:, None]
    return write_codes(folder / "codes", list(images), packed, 8, uris=uris)


def test_the_page_says_how_each_was_verified(gallery: Path) -> None:
    page = gallery / "page.html"
    schn_ray.duplicates(gallery / "codes", gallery / "g.parquet", html=page)
    html = page.read_text()
    assert html.count("same bytes") == 2
    assert html.count("looks the same: 0.0") == len(THREE) - 1
    assert "warning: codes within 0 bits connect" in html


def features_of(vectors: dict[str, NDArray[np.float32]], out: Path) -> Path:
    """Write features as embed does, of vectors."""
    import pyarrow as pa

    from schn_ray.core.directories import new_directory
    from schn_ray.data.shards.vectors import arrow_vectors

    with new_directory(out, "features", {}, {}) as draft:
        X = arrow_vectors(np.stack(list(vectors.values())))
        table = pa.table({"id": pa.array(list(vectors)), "vector": X})
        (draft.path / "backbone").mkdir()
        with (
            pa.OSFile(str(draft.path / "rows-00000.arrow"), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
    return out


def test_features_verify_where_there_are_no_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 8)).astype(np.float32)
    X[3], X[4] = 2 * X[0] + 0.01, -X[1]
    ids = list("abcdef")
    features = features_of(dict(zip(ids[:5], X, strict=False)), tmp_path / "features")
    codes = write_codes(tmp_path / "codes", ids, np.zeros((6, 1), np.uint8), 8)
    out = tmp_path / "groups.parquet"
    counts = schn_ray.duplicates(codes, out, verify="features", features=features).counts
    assert groups_in(out) == [["a", "d"]]
    assert counts.unverified == 1  # f has none
    for options in ({"verify": "features"}, {"features": features}):
        with pytest.raises(SchnRayError, match="go together"):
            schn_ray.duplicates(codes, out, **options)
    other = features_of({"x": X[0]}, tmp_path / "other")
    with pytest.raises(SchnRayError, match="has no features of the 6 images"):
        schn_ray.duplicates(codes, out, verify="features", features=other)
