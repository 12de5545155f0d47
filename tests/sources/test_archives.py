"""What is read from archives and folders, and everything that is refused."""

import os
import stat
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tools.hostile_files import zipped

from sbirlib.sources import archives
from sbirlib.sources.archives import ArchiveError, open_archive

# Every example makes a file; how long that takes says nothing.
relaxed = settings(
    deadline=None,
    max_examples=80,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FILES = {"top/trainA/a_1.png": b"one", "top/trainB/a.png": b"two", "top/naïve name.txt": b""}


def contents(path):
    with open_archive(path) as listing:
        return {str(entry.path): entry.read() for entry in listing.entries}


@pytest.mark.parametrize("name", ["a.zip", "a.dat"])
def test_files_come_back_whatever_the_archive_is_called(name, tmp_path):
    assert contents(zipped(tmp_path / name, FILES)) == FILES


def test_a_folder_is_read_with_the_archives_in_it(tmp_path):
    zipped(tmp_path / "trainA.zip", {"a_1.png": b"one"})
    (tmp_path / "trainB" / "deep").mkdir(parents=True)
    (tmp_path / "trainB" / "deep" / "a.png").write_bytes(b"two")
    (tmp_path / "trainB" / ".DS_Store").write_bytes(b"")
    assert contents(tmp_path) == {"trainA.zip/a_1.png": b"one", "trainB/deep/a.png": b"two"}


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.png").write_bytes(b"secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file.png").symlink_to(tmp_path / "secret" / "a.png")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "pipe.png")
    with open_archive(tmp_path / "data") as listing:
        assert listing.entries == []
        assert sorted(fault.path.name for fault in listing.faults) == [
            "file.png",
            "folder",
            "loop",
            "pipe.png",
        ]


def test_a_broken_archive_in_a_folder_does_not_hide_the_rest(tmp_path):
    zipped(tmp_path / "good.zip", FILES)
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and no more")
    with open_archive(tmp_path) as listing:
        assert len(listing.entries) == len(FILES)
        assert [(fault.path.name, fault.detail[:10]) for fault in listing.faults] == [
            ("bad.zip", "is damaged")
        ]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "/etc/evil.png",
        "C:/evil.png",
        "C:evil.png",
        "..\\evil.png",
        "\\\\server\\evil.png",
    ],
)
def test_paths_that_lead_out_are_refused(name, tmp_path):
    path = zipped(tmp_path / "archive", {"fine.png": b"1", name: b"evil"})
    with pytest.raises(ArchiveError, match=r"archive: holds .*evil.png, a path that leads out") as error:
        contents(path)
    assert "Nothing was unpacked" in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]


def test_links_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("x.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match=r"a.zip: holds x.png, which is a link or device"):
        contents(tmp_path / "a.zip")


def test_what_grows_too_much_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL", 2**20)
    path = zipped(tmp_path / "bomb.zip", {"zeros.bmp": bytes(4 * 2**20)})
    with pytest.raises(ArchiveError, match="unpacks to more than 1 MiB .* as a decompression bomb does"):
        contents(path)
    monkeypatch.setattr(archives, "MAX_RATIO", 2000)
    assert len(contents(path)["zeros.bmp"]) == 4 * 2**20


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(ArchiveError, match="holds more than 2 files"):
        contents(zipped(tmp_path / "a.zip", FILES))


def test_one_file_too_large_spoils_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE", 10)
    with open_archive(zipped(tmp_path / "a.zip", {"small.png": b"1", "large.png": bytes(11)})) as listing:
        assert listing.entries[0].read() == b"1"
        with pytest.raises(ArchiveError, match=r"a.zip, large.png: is larger than"):
            listing.entries[1].read()


def test_one_damaged_file_spoils_nothing_else(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.png", b"good")
        archive.writestr("bad.png", b"twelve bytes")
    path.write_bytes(path.read_bytes().replace(b"twelve bytes", b"twelve bitez"))
    with open_archive(path) as listing:
        assert listing.entries[0].read() == b"good"
        with pytest.raises(ArchiveError, match=r"a.zip, bad.png: is damaged or incomplete .Bad CRC"):
            listing.entries[1].read()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty .0 bytes.; download it again"),
        (b"Rar!\x1a\x07", "is not a .zip"),
        (b"\xfd7zXZ\0", "is not a .zip"),
        (b"PK\x03\x04", "is damaged or incomplete; download it again"),
        (b"\x1f\x8b\x08", "is not a .zip archive; unpack it yourself"),
        (b"\x80\x04\x95", "is a Python pickle; opening one can run any program, so it was not opened"),
    ],
)
def test_other_files_are_named_for_what_they_are(data, words, tmp_path):
    (tmp_path / "download").write_bytes(data)
    with pytest.raises(ArchiveError, match=f"download: {words}"):
        contents(tmp_path / "download")


def test_what_is_not_there_and_what_is_encrypted(tmp_path):
    with pytest.raises(ArchiveError, match="nowhere: no such file or folder"):
        contents(tmp_path / "nowhere")
    path = zipped(tmp_path / "a.zip", {"x.png": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is encrypted; unpack it yourself"):
        contents(path)


NAMES = st.text(st.sampled_from("ab.:/\\~ \n\x1b\u0301é"), min_size=1, max_size=12)


def attempt(work):
    """What `work` gives, and the message if it raises ArchiveError; any other error fails the test."""
    try:
        return work(), ""
    except ArchiveError as error:
        return None, str(error)


@relaxed
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_any_name_stays_inside_or_is_refused(names, tmp_path):
    path = zipped(tmp_path / "archive", {name: b"x" for name in names})
    found, message = attempt(lambda: contents(path))
    assert (found is None) == (message != "")
    for name in found or ():
        inside = PurePosixPath(name)
        assert not inside.is_absolute()
        assert ".." not in inside.parts
        assert (tmp_path / inside).resolve().is_relative_to(tmp_path.resolve())


@relaxed
@given(data=st.data())
def test_any_damage_is_survived(data, tmp_path):
    path: Path = zipped(tmp_path / "a.zip", FILES)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)

    def read_all():
        with open_archive(path) as listing:
            return [(entry.size, *attempt(entry.read)) for entry in listing.entries]

    found, message = attempt(read_all)
    assert message == "" or str(path) in message
    for size, content, reason in found or ():
        # A list that is wrong about a size harms nobody where the checksum of what is read is right.
        assert reason or len(content) == size or size not in map(len, FILES.values())
        assert reason or content in FILES.values()
        assert not reason or str(path) in reason
