"""Settings from file, environment and command line; every mistake gives one sentence."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.config import Config, SamplingConfig, find_bundled_model, resolve_model
from samovar.core.chat import Sampling
from samovar.core.errors import SamovarError
from samovar.core.units import FOREVER, format_size, parse_duration, parse_size


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_no_file_means_the_defaults(file: Path) -> None:
    assert Config.load(file) == Config()


def test_the_command_line_beats_the_environment_beats_the_file(file: Path) -> None:
    file.write_text('context = 1024\nthreads = 3\nram_limit = "1GiB"\n[sampling]\ntop_k = 5\n')
    env = {"SAMOVAR_THREADS": "4", "SAMOVAR_RAM_LIMIT": "2GiB", "SAMOVAR_SEED": "7", "SAMOVAR_HOME": "/x"}
    config = Config.load(file, env, {"ram_limit": "off", "sampling.top_p": 0.5, "context": None})
    assert (config.context, config.threads, config.ram_limit) == (1024, 4, "off")
    assert config.sampling == SamplingConfig(top_k=5, top_p=0.5, seed=7)


def test_an_empty_variable_counts_as_not_set(file: Path) -> None:
    assert Config.load(file, {"SAMOVAR_MODEL": ""}).model is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("contxt = 1", '"contxt"; did you mean "context"?'),
        ("zzz = 1", 'unknown key "zzz"; known are model, context'),
        ("temperature = 1.0", 'did you mean "sampling.temperature"?'),
        ("[sampling]\ntemprature = 1.0", 'did you mean "sampling.temperature"?'),
        ("context = 3", 'context must be "auto" or a whole number of tokens from 64 up, not 3'),
        ('context = "many"', 'context must be "auto" or a whole number of tokens from 64 up, not "many"'),
        ("threads = true", 'threads must be "auto" or a whole number from 1 to 512, not True'),
        ('kv_type_v = "q3"', "kv_type_v must be one of f32, f16, bf16, q8_0"),
        ('ram_limit = "lots"', 'ram_limit must be "auto", "unlimited", "off" or a size such as "2GiB"'),
        ('token_limit = "-5"', "token_limit must be"),
        ('keep_alive = "soon"', "keep_alive must be a duration"),
        ("keep_alive = -7", "keep_alive must be a duration"),
        ("[sampling]\ntemperature = nan", "sampling.temperature must be a number from 0 (greedy) to 10"),
        ("[sampling]\nseed = -1", "sampling.seed must be a whole number"),
        ("sampling = 3", "sampling must be a section"),
        ("max_fps = 0", "max_fps must be a whole number from 1 to 60, not 0"),
        ("model = 3", "model must be the path of a GGUF file"),
        ("context = ", "is not valid TOML (Invalid value (at end of document))"),
        pytest.param("a = " + "[" * 100_000, "is not valid TOML", id="deep"),
    ],
)
def test_a_mistake_in_the_file_gives_one_sentence(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(SamovarError) as caught:
        Config.load(file)
    message = str(caught.value)
    assert words in message
    assert str(file) in message
    assert "\n" not in message


def test_a_file_that_is_not_text_gives_one_sentence(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SamovarError, match="is not valid TOML"):
        Config.load(file)


def test_a_folder_in_place_of_the_file_gives_one_sentence(file: Path) -> None:
    file.mkdir()
    with pytest.raises(SamovarError, match="Cannot read"):
        Config.load(file)


def test_mistakes_elsewhere_name_their_source(file: Path) -> None:
    with pytest.raises(SamovarError, match="environment variable SAMOVAR_CONTEXT: context must be"):
        Config.load(file, {"SAMOVAR_CONTEXT": "x"})
    with pytest.raises(SamovarError, match=r"--max-tokens: sampling\.max_tokens must be"):
        Config.load(file, {}, {"sampling.max_tokens": "0"})


def test_saving_writes_only_what_differs(file: Path) -> None:
    config = Config(context=2048, ram_limit="2GiB", sampling=SamplingConfig(seed=3))
    config.save(file)
    assert file.read_text() == 'context = 2048\nram_limit = "2GiB"\n\n[sampling]\nseed = 3\n'
    assert Config.load(file) == config
    Config().save(file)
    assert file.read_text() == ""
    assert [entry.name for entry in file.parent.iterdir()] == ["config.toml"]


def test_saving_where_nothing_can_be_written_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SamovarError, match="a file is in its place"):
        Config().save(tmp_path / "file" / "config.toml")


def test_engine_settings_carry_what_the_engine_needs() -> None:
    config = Config(context=4096, threads=2, kv_type_k="q8_0", token_limit=9000, keep_alive="-1")
    settings = config.engine_settings(Path("/m.gguf"))
    assert (settings.model_path, settings.context_tokens, settings.num_threads) == ("/m.gguf", 4096, 2)
    assert (settings.kv_type_k, settings.token_limit, settings.keep_alive_s) == ("q8_0", "9000", FOREVER)
    assert Config().engine_settings(Path("/m.gguf")).context_tokens == 0


def test_the_sampling_defaults_are_the_core_defaults() -> None:
    assert Config().sampling.sampling() == Sampling()


def test_the_bundled_model_is_found_and_is_the_default() -> None:
    bundled = find_bundled_model()
    assert bundled is not None
    assert bundled.read_bytes()[:4] == b"GGUF"
    assert resolve_model(Config()) == bundled.resolve()


def test_a_model_that_cannot_be_used_gives_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SamovarError, match=r"no model file at .*nothing.gguf.*--model.*SAMOVAR_MODEL"):
        resolve_model(Config(model=str(tmp_path / "nothing.gguf")))
    with pytest.raises(SamovarError, match="is a folder"):
        resolve_model(Config(model=str(tmp_path)))


def test_a_model_whose_name_is_not_text_gives_one_sentence(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.gguf")
    Path(path).write_bytes(b"GGUF")
    with pytest.raises(SamovarError, match=r"caf�\.gguf is not valid UTF-8") as caught:
        resolve_model(Config(model=path))
    str(caught.value).encode()


@pytest.mark.parametrize("key", ["sampling.seed", "sampling.max_tokens", "context", "token_limit"])
@pytest.mark.parametrize("value", ["9" * 23, "9" * 5000, "-5", "caf\udce9", ""])
def test_numbers_out_of_range_and_broken_text_give_one_sentence(file: Path, key: str, value: str) -> None:
    with pytest.raises(SamovarError, match="must be"):
        Config.load(file, {}, {key: value})


def test_a_number_without_end_in_the_file_gives_one_sentence(file: Path) -> None:
    file.write_text("[sampling]\nseed = " + "9" * 5000)
    with pytest.raises(SamovarError, match="is not valid TOML"):
        Config.load(file)


def test_a_token_limit_may_be_auto(file: Path) -> None:
    file.write_text('token_limit = "auto"')
    assert Config.load(file).engine_settings(Path("/m.gguf")).token_limit == "auto"


def test_a_model_by_a_link_is_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "real.gguf").write_bytes(b"GGUF")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "real.gguf")
    assert resolve_model(Config(model=str(tmp_path / "link.gguf"))) == (tmp_path / "real.gguf").resolve()


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 << 30), ("512 mib", 512 << 20), ("1.5G", 3 << 29), ("2GB", 2 * 10**9), ("17", 17), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "2 apples", "nan", "1e9", "9" * 20 + "TiB", "²GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SamovarError):
        parse_size(text)


@given(st.integers(0, 1 << 50))
def test_a_formatted_size_reads_back_nearly_the_same(num_bytes: int) -> None:
    assert abs(parse_size(format_size(num_bytes)) - num_bytes) <= num_bytes * 0.06


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(17, "17 B"), (1024, "1.0 KiB"), (90_000, "88 KiB"), (1023 << 20, "1023 MiB"), (3 << 29, "1.5 GiB")],
)
def test_sizes_are_short(num_bytes: int, text: str) -> None:
    assert format_size(num_bytes) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("90s", 90), ("0", 0), ("-1", FOREVER), ("1h30m", 5400), ("2 h", 7200), ("45", 45)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-2", "30 minutes", "1h x", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SamovarError):
        parse_duration(text)
