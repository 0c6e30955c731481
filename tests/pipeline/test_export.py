"""Runs exported: the folder loads as the run's model, whole and merged, the hub reads its card, and nothing leaks."""

from __future__ import annotations

import base64
import errno
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.cli import main
from posttrain.errors import CheckpointError, ConfigError
from posttrain.export.export import export
from posttrain.export.model_card import fence
from posttrain.export.origin import origin_of, without_places
from posttrain.export.pushing import push, token_of
from posttrain.models.load import load_policy
from posttrain.rundir.facts import read_recipe, write_recipe
from posttrain.rundir.layout import Layout
from posttrain.storage import files
from tests.pipeline.runs import train
from tests.pipeline.runs import write_recipe as write_tiny

IDS = torch.tensor([[5, 40, 41, 42, 7, 90, 120, 33]])
SECRET = "hf_" + "a1B2" * 8


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


@pytest.fixture(scope="module")
def whole(reference, tmp_path_factory) -> Path:
    """A copy of the reference run, which a test may change."""
    return shutil.copytree(reference(), tmp_path_factory.mktemp("whole") / "kk")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Path:
    """A run that trained an adapter, on a base that the run built."""
    folder = write_tiny(tmp_path_factory.mktemp("adapted"))
    ended = train(folder, "lora.r=4", "hybrid.steps=2", "evaluate.at_start=false", "warmup.save_steps=5",
                  "hybrid.save_steps=2", "evaluate.every=0")  # fmt: skip
    assert ended.code == 0, ended.text
    return folder / "run"


def assert_nothing_of_here(folder: Path, *more: str) -> None:
    """No path of this machine and no secret in any text of the folder."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".md", ".yaml", ".svg"):
            text = path.read_text(encoding="utf-8")
            for private in ("/tmp", "/home", "/root", str(Path.cwd()), SECRET, *more):
                assert private not in text, f"{private} in {path.name}"


def test_a_whole_model(whole, tmp_path, capsys):
    assert main(["export", str(whole), "--to", str(tmp_path / "out")]) == 0
    assert "the final model: " in capsys.readouterr().out
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "mix.svg", "model.safetensors", "recipe.yaml",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert torch.equal(logits(model), logits(load_policy(whole / "model")))
    assert model.config.use_cache is True
    inputs = tokenizer("Puzzle: Ann says", return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=5, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
    assert_nothing_of_here(out)
    assert not list(tmp_path.glob(".*"))


def test_what_the_hub_reads_and_what_people_read(whole, tmp_path):
    export(whole, tmp_path / "my-model", license="mit")
    card = ModelCard.load(tmp_path / "my-model" / "README.md")
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "transformers", "text-generation")
    assert {"posttrain", "sft", "grpo", "knights_knaves"} <= set(data.tags)
    (result,) = data.eval_results
    last = files.read_lines(whole / "eval.jsonl")[-1]
    assert (result.metric_type, result.metric_value) == ("pass@1", round(last["pass@1"], 4))
    text = card.text
    assert "5 steps of SFT on demonstrations, then 10 steps of SFT and GRPO, mixed step by step by `sasr`" in text
    assert json.loads((whole / "data.json").read_text())["splits"]["eval"]["hash"] in text
    assert "![The share of SFT and GRPO by step](mix.svg)" in text
    assert "num_generations: 2" in text
    assert 'from_pretrained("my-model")' in text
    assert "| Final | 10 | 8 |" in text
    assert "On the way" not in text
    assert "&#" not in text
    code = text.split("```python\n")[1].split("```")[0].replace("my-model", str(tmp_path / "my-model"))
    exec(compile(code, "card", "exec"), {"print": lambda text: None})


@pytest.mark.parametrize("which", ["warmup", "checkpoint"])
def test_another_model_of_the_run_has_its_own_results(whole, tmp_path, which):
    chosen = {"stage": "warmup"} if which == "warmup" else {"checkpoint": 6}
    export(whole, tmp_path / "out", **chosen)
    folder = whole / ("warmup" if which == "warmup" else "checkpoints/hybrid/checkpoint-6")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(load_policy(folder)))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "| Final |" not in card.text
    assert "| After the warm-up |" in card.text
    assert (card.data.eval_results is not None) == (which == "warmup")  # the checkpoint has none of its own
    assert (tmp_path / "out" / "mix.svg").exists() == (which == "checkpoint")
    assert ("6 steps of SFT and GRPO" in card.text) == (which == "checkpoint")
    assert not list((tmp_path / "out").glob("*.pt"))


def test_a_merged_adapter_is_the_adapter(adapted, tmp_path, capsys):
    assert main(["export", str(adapted), "--to", str(tmp_path / "out"), "--merge-lora"]) == 0
    assert "note: merged in float32: logits differ" in capsys.readouterr().out
    expected, base = logits(load_policy(adapted / "model")), logits(load_policy(adapted / "init"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not hasattr(model, "peft_config")
    assert torch.allclose(logits(model), expected, atol=1e-5)
    assert not torch.allclose(base, expected, atol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("Puzzle").input_ids
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    assert_nothing_of_here(tmp_path / "out")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.library_name == "transformers"


def test_an_adapter_as_it_is(adapted, tmp_path):
    with pytest.raises(ConfigError, match=r"stands on a model of this machine alone: a Llama-style(.|\n)*--merge-lora"):
        export(adapted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    exported = export(adapted, tmp_path / "out", base_model="some/base")
    assert "its base model, some/base" in exported.notes[0]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"
    assert_nothing_of_here(tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.base_model, card.data.library_name) == ("some/base", "peft")
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    config["base_model_name_or_path"] = str(adapted / "init")  # where some/base is here
    (tmp_path / "out" / "adapter_config.json").write_text(json.dumps(config))
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(model), logits(load_policy(adapted / "model")))


@pytest.mark.parametrize("options", [{"target_modules": ["q_proj", "embed_tokens"]}, {"modules_to_save": ["lm_head"]},
                                     {"use_dora": True}], ids=["embedding", "whole-head", "dora"])  # fmt: skip
def test_adapters_that_part_the_head_from_the_embedding(adapted, tmp_path, options):
    run = shutil.copytree(adapted, tmp_path / "run")
    shutil.rmtree(run / "model")
    torch.manual_seed(0)
    lora = LoraConfig(
        **({"r": 3, "target_modules": ["q_proj"], "init_lora_weights": False} | options), task_type="CAUSAL_LM"
    )
    model = get_peft_model(load_policy(run / "init"), lora)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(run / "model")
    shutil.copy(run / "init" / "tokenizer.json", run / "model")
    _seal(run / "model")
    export(run, tmp_path / "out", merge_lora=True)
    expected = logits(load_policy(run / "model"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(merged), expected, atol=2e-5)
    assert merged.config.tie_word_embeddings == ("use_dora" in options)


def test_an_adapter_of_a_run_that_was_moved(adapted, tmp_path):
    run = shutil.copytree(adapted, tmp_path / "moved")
    config = json.loads((run / "model" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/gone/run/init"
    (run / "model" / "adapter_config.json").write_text(json.dumps(config))
    _seal(run / "model")
    export(run, tmp_path / "out", merge_lora=True)
    expected = logits(load_policy(adapted / "model"))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), expected, atol=1e-5)
    assert not (tmp_path / "out" / "adapter").exists()


def _seal(folder: Path) -> None:
    from posttrain.storage.checkpoints import seal

    (folder / "manifest.json").unlink(missing_ok=True)
    seal(folder)


def test_a_merge_that_is_not_the_adapter_is_caught(adapted, tmp_path, monkeypatch):
    from posttrain.models import merging

    monkeypatch.setattr(merging, "named_weights", lambda model: load_policy(adapted / "init").state_dict().items())
    with pytest.raises(CheckpointError, match="merged model's logits differ from the adapter's by"):
        export(adapted, tmp_path / "out", merge_lora=True)
    assert not list(tmp_path.iterdir())


def test_weights_in_another_dtype(whole, tmp_path):
    export(whole, tmp_path / "out", dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    size, was = ((folder / "model.safetensors").stat().st_size for folder in (tmp_path / "out", whole / "model"))
    assert size < 0.6 * was
    expected = load_policy(whole / "model", dtype="bfloat16")
    assert torch.equal(logits(model), logits(expected))


def test_secrets_and_places_stay_here(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    recipe = read_recipe(run / "recipe.yaml")
    recipe["rewards"] = [{"path": f"{tmp_path}/rewards.py:score", "kwargs": {"api_key": "x", "note": SECRET}}]
    recipe["model"]["name"] = "~/models/base"
    recipe["model"]["init"] = None
    recipe["task"]["note"] = f"from {tmp_path}/data/rows.jsonl and https://example.org/a/b"
    recipe["task"]["fence"] = "```\n# not a heading"
    write_recipe(run / "recipe.yaml", recipe)
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps(config | {"_name_or_path": str(run), "other": f"{run}/init"}))
    tokens = {"extra_special_tokens": {"av_token": "</av>"}, "chat_template": "{{ '/think/of/it' }}", "sep_token": "/"}
    file = run / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | tokens | {"vocab_file": str(file)}))
    _seal(run / "model")
    export(run, tmp_path / "out")
    assert_nothing_of_here(tmp_path / "out", "api_key: x")
    assert "_name_or_path" not in json.loads((tmp_path / "out" / "config.json").read_text())
    shared = read_recipe(tmp_path / "out" / "recipe.yaml")
    kept = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert {name: kept[name] for name in tokens} == tokens  # a template or a token is no path and no secret
    assert kept["vocab_file"] == "tokenizer_config.json"
    assert shared["rewards"][0]["path"] == "rewards.py:score"
    assert shared["model"]["name"] == "base"
    assert shared["task"]["note"] == "from rows.jsonl and https://example.org/a/b"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "a local model, base" in text
    assert "````yaml\nmodel:" in text
    assert fence("a ```` b") == "`````\na ```` b\n`````"
    assert without_places(["a/b/c", "../x", "./rewards.py:score", "C:\\x\\y.py"]) == [
        "a/b/c", "../x", "./rewards.py:score", "y.py"]  # fmt: skip


def test_where_a_run_began(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "completions", "init"))
    recipe = read_recipe(run / "recipe.yaml")

    def origin(**model):
        write_recipe(run / "recipe.yaml", recipe | {"model": recipe["model"] | {"init": None} | model})
        return origin_of(Layout(run))

    hub = origin(name="some-org/a-model-that-nobody-has", revision="abc")
    assert (hub.hub_id, hub.license, hub.made_here) == ("some-org/a-model-that-nobody-has", None, False)
    assert "revision abc" in hub.words
    packaged = origin(name="smollm2-135m-instruct")
    assert (packaged.hub_id, packaged.license, packaged.made_here) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", True
    )  # fmt: skip
    assert origin(gguf="/x/Tiny<b>.gguf").words == "a GGUF file, Tiny_b_.gguf, dequantised"
    local = shutil.copytree(whole / "init", tmp_path / "local")
    (local / "README.md").write_text("---\nlicense: mit\n---\n")
    assert (origin(name=str(local)).license, origin(name=str(local)).hub_id) == ("mit", None)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_an_unfinished_run(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "model")
    with pytest.raises(
        ConfigError, match=r"no model/: the run is not finished(.|\n)*--stage warmup; --checkpoint 2 or 4"
    ):
        export(run, tmp_path / "out")
    (run / "eval.jsonl").unlink()
    (run / "data.json").unlink()
    export(run, tmp_path / "out", stage="warmup")
    assert "The run has no evaluation yet" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ConfigError, match="checkpoint-7"):
        export(run, tmp_path / "other", checkpoint=7)
    with pytest.raises(ConfigError, match="is no run"):
        export(tmp_path, tmp_path / "other")
    with pytest.raises(ConfigError, match="no adapter to merge"):
        export(whole, tmp_path / "other", merge_lora=True)


def test_other_files_are_never_replaced(whole, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export(whole, out)  # an empty folder is taken
    with pytest.raises(ConfigError, match=r"not empty(.|\n)*--force to replace this earlier export"):
        export(whole, out)
    (out / "leftover.bin").write_text("old")
    export(whole, out, force=True)
    assert not (out / "leftover.bin").exists()
    assert not list(tmp_path.glob(".out*"))
    (out / "README.md").unlink()
    for force in (False, True):
        with pytest.raises(ConfigError, match="not empty"):
            export(whole, out, force=force)
        with pytest.raises(ConfigError, match="not empty"):
            export(whole, whole, force=force)
    with pytest.raises(ConfigError, match="is a file"):
        export(whole, whole / "recipe.yaml")


def test_a_torn_model_and_a_full_disk(whole, tmp_path, monkeypatch):
    run = shutil.copytree(whole, tmp_path / "run")
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"the model is torn: model\.safetensors has"):
        export(run, tmp_path / "out")

    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(CheckpointError, match=r"No space left on device(.|\n)*free some disk space"):
        export(whole, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# -- uploading ---------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as an upload needs; `server` keeps what it was told."""

    def log_message(self, *args):
        pass

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.server.refuses:
            self._answer(self.server.refuses, {"error": "no"})
            return
        self._answer(200, {"id": "org/model", "private": self.server.private, "siblings": [], "sha": "0" * 40})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.server.refuses:
            self._answer(self.server.refuses, {"error": f"no, {SECRET}"})
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer(200, {"url": f"http://{self.headers['Host']}/org/model"})
        elif self.path == "/api/validate-yaml":
            self.server.card = json.loads(body)["content"]
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            wanted = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                      for each in json.loads(body)["files"]]  # fmt: skip
            self._answer(200, {"files": wanted})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(200, {"commitUrl": f"http://{self.headers['Host']}/org/model/commit/{'0' * 40}",
                               "commitOid": "0" * 40, "hookOutput": ""})  # fmt: skip
        else:
            self._answer(404, {"error": self.path})


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.files, server.created, server.private, server.refuses = [], {}, {}, True, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    yield server
    server.shutdown()
    server.server_close()


def made_private(created: dict) -> bool:
    """huggingface_hub 1.x says it by `visibility`, earlier versions by `private`."""
    return created.get("private", created.get("visibility") == "private")


def test_an_upload_to_a_private_repository(whole, tmp_path, hub):
    export(whole, tmp_path / "out", name="org/model")
    assert push(tmp_path / "out", "org/model", token=SECRET) == f"{hub.address}/org/model"
    assert made_private(hub.created)
    assert {auth for _, auth in hub.asked} == {f"Bearer {SECRET}"}
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert b'from_pretrained("org/model")' in hub.files["README.md"]


def test_a_public_repository_is_not_written_to_unasked(tmp_path, hub):
    (tmp_path / "README.md").write_text("x")
    hub.private = False
    with pytest.raises(ConfigError, match=r"org/model is there already and public(.|\n)*--public"):
        push(tmp_path, "org/model", token=SECRET)
    assert hub.files == {}
    push(tmp_path, "org/model", token=SECRET, public=True)
    assert not made_private(hub.created)
    assert list(hub.files) == ["README.md"]


@pytest.mark.parametrize(("status", "kind"), [(401, ConfigError), (403, ConfigError), (500, CheckpointError)])
def test_a_hub_that_refuses(tmp_path, hub, status, kind, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    hub.refuses = status
    with pytest.raises(kind, match="refuses the token" if status < 500 else "refused the upload") as raised:
        push(tmp_path, "org/model", token=SECRET)
    assert SECRET not in str(raised.value)
    assert "is whole" in str(raised.value)


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"http://127\.0\.0\.1:9 could not be reached(.|\n)*by the same command"):
        push(tmp_path, "org/model", token=SECRET)


def test_no_token_and_no_name(whole, tmp_path, capsys, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert main(["export", str(whole), "--to", str(tmp_path / "out"), "--push", "org/model"]) == 2
    assert "there is no token of the hub" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert token_of() == SECRET
    assert main(["export", str(whole), "--to", str(tmp_path / "out"), "--push", "just-a-name"]) == 2
    said = capsys.readouterr().err
    assert "'just-a-name' is no name of a repository" in said
    assert SECRET not in said
    assert not (tmp_path / "out").exists()
