"""Attacks: a recipe, a model, a completion or a worker that tries to run code, to leave its page, or to keep a secret.

Each leaves a file where it has run, or a mark on a page; checkpoints are attacked in tests/training.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from posttrain.cli import main
from posttrain.errors import ConfigError
from posttrain.inputs.inputs import load_data, load_rewards, loading
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.recipe.recipe import load_recipe
from posttrain.recipe.sections import RewardConfig
from posttrain.recipe.yamlfile import MOST_VALUES
from posttrain.report.report import write_report
from posttrain.rollouts.vllm_server import serve_command
from posttrain.rundir import environment
from posttrain.rundir.facts import read_recipe
from posttrain.rundir.masking import command_without_secrets, without_secrets
from posttrain.rundir.rundir import RunDir
from posttrain.scoring.loading import load_reward
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.worker import answers_from
from tests.attacks import Leaves

RECIPE = "model: {init: {}}\ntask: {name: knights_knaves, people: [2], train: 4, eval: 2, demonstrations: 2}\n"


@pytest.fixture
def mark(tmp_path) -> Path:
    """The file that an attack leaves where it succeeds."""
    return tmp_path / "attacked"


def recipe(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(text)
    return file


# ---- recipes are data ----


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system ['touch {}']", "!!python/name:os.system", "!command x", "!!set {{a, b}}"]
)
def test_tags_are_refused(tmp_path, mark, value):
    text = value.format(mark)
    with pytest.raises(ConfigError, match=r"recipe.yaml:3: the tag !"):
        load_recipe(recipe(tmp_path, f"{RECIPE}run: {text}\n"))
    with pytest.raises(ConfigError, match=r"not valid YAML|command line: run"):
        load_recipe(recipe(tmp_path, RECIPE), [f"run={text}"])
    assert not mark.exists()


@pytest.mark.parametrize("item", ["[{}]", "{{{}}}"], ids=["lists", "mappings"])
def test_a_billion_laughs_end_early(tmp_path, item):
    keyed = "{" in item
    lines = ["l0: &l0 " + item.format(", ".join(f"k{n}: 1" if keyed else "1" for n in range(9)))]
    for level in range(1, 10):
        names = ", ".join(f"k{n}: *l{level - 1}" if keyed else f"*l{level - 1}" for n in range(9))
        lines.append(f"l{level}: &l{level} {item.format(names)}")
    with pytest.raises(ConfigError, match=f"more than {MOST_VALUES:,} values"):
        load_recipe(recipe(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 2000, "brackets one in another"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 2001-99-99", "month"),
        ("".join(f"{' ' * depth}a:\n" for depth in range(900)), "nested too deep"),
        (f"extends: {os.devnull}", "no file but a device"),
        ("extends: large.yaml", "2,097,152 bytes"),
        ("extends: recipe.yaml", "extend each other"),
    ],
    ids=["brackets", "digits", "date", "deep", "device", "large", "loop"],
)
def test_odd_files_are_refused_in_words(tmp_path, text, said):
    (tmp_path / "large.yaml").write_bytes(b"#" * 2**21)
    with pytest.raises(ConfigError, match=said):
        load_recipe(recipe(tmp_path, RECIPE + text + "\n"))


@pytest.mark.parametrize("stage", ["warmup", "hybrid"])
@pytest.mark.parametrize(
    "argument",
    [
        "push_to_hub: true", "hub_token: hf_x", "hub_model_id: me/mine", "trackio_space_id: me/space",
        "trust_remote_code: true", "model_init_kwargs: {trust_remote_code: true}", "report_to: [wandb]",
        "deepspeed: ds.json", "fsdp_config: fsdp.json", "accelerator_config: a.json", "resume_from_checkpoint: /x",
        "output_dir: /x",
    ],
)  # fmt: skip
def test_arguments_that_run_code_or_send_data_are_refused(tmp_path, stage, argument):
    name = argument.partition(":")[0]
    with pytest.raises(ConfigError, match=f"{stage}.args.{name}: {name} in args"):
        load_recipe(recipe(tmp_path, f"{RECIPE}{stage}: {{args: {{{argument}}}}}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "hybrid: {args: {log_completions_hub_repo: me/x}}", "warmup: {args: {chat_template_path: /x}}",
        "lora: {args: {megatron_core: evil}}", "lora: {args: {auto_mapping: {parent_library: evil}}}",
        "lora: {args: {base_model_name_or_path: /x}}", "lora: {args: {corda_config: {cache_file: x.pt}}}",
    ],
)  # fmt: skip
def test_arguments_of_one_library_that_reach_further_are_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=" in args"):
        load_recipe(recipe(tmp_path, RECIPE + text + "\n"))


def test_a_kernel_of_the_hub_is_code(tmp_path):
    text = RECIPE.replace("{init: {}}", "{name: a/b, attn_implementation: evil/kernel%s}")
    with pytest.raises(ConfigError, match="'evil/kernel' is a kernel of the hub"):
        load_recipe(recipe(tmp_path, text % ""))
    assert load_recipe(recipe(tmp_path, text % ", trust_remote_code: true")).model.trust_remote_code


def test_a_tasks_files_are_only_read(tmp_path):
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps({"question": f"{a}+1?", "answer": f"{a} + 1\n#### {a + 1}"}) + "\n" for a in range(12)]
    rows.write_text("".join(lines))
    rows.chmod(0o444)
    before = sorted((path, path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir())
    recipe_file = recipe(
        tmp_path / "r",
        f"model: {{init: {{}}}}\ntask: {{name: math, path: {rows}, eval: 2, train: 4, demonstrations: 4}}\n",
    )
    load_data(load_recipe(recipe_file))
    shutil.rmtree(recipe_file.parent)
    assert sorted((path, path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()) == before


# ---- rewards: the only code that a recipe names ----


def test_only_the_named_file_is_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("neighbour", "conftest", "sitecustomize", "__init__"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')\n")
    (tmp_path / "mine.py").write_text("def score(completion, **row):\n    return 1.0\n")
    before = set(sys.modules)
    loaded = load_recipe(recipe(tmp_path, RECIPE + "rewards: [{path: mine.py}]\n"))
    assert not [name for name in set(sys.modules) - before if "posttrain_reward" in name], "reading runs nothing"
    (reward,) = load_rewards(loaded, load_data(loaded))
    with RewardPool([reward], workers=1) as pool:
        assert pool.score(0, ["x"], [{}])[0].score.value == 1.0


@pytest.fixture
def outside(tmp_path) -> Path:
    """A reward beside the recipe's folder, and a link to it in there."""
    file = tmp_path / "outside.py"
    file.write_text("def score(completion, **row):\n    return 1.0\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.py").symlink_to(file)
    return file


OUT = ["../outside.py", "../outside.py:score", "link.py", "./link.py:score", "a/../../outside.py"]


@pytest.mark.parametrize("path", OUT)
def test_a_reward_outside_the_folder_needs_its_path_spelled_out(tmp_path, outside, path, monkeypatch):
    with pytest.raises(ConfigError, match=r"leads out of the folder of the recipe[^$]*absolute path[^$]*write /"):
        load_recipe(recipe(tmp_path / "in", f"{RECIPE}rewards: [{{path: '{path}'}}]\n"))
    monkeypatch.chdir(tmp_path / "in")
    file = recipe(tmp_path / "in", RECIPE + "rewards: [format]\n")
    function = ":score" if path.endswith(":score") else ""
    with pytest.raises(ConfigError, match=f"fix: write {re.escape(str(outside))}{function}, if") as failed:
        load_recipe(file, [f"rewards=[{{path: '{path}'}}]"])
    assert "leads out of the folder" in str(failed.value)
    spelled = load_recipe(file, [f"rewards=[{{path: '{outside}'}}]"])
    assert spelled.rewards[0].path == str(outside)
    assert load_recipe(file, [f"rewards=[{{path: {tmp_path}/in/link.py}}]"]).rewards[0].path == str(outside)


def test_a_parents_reward_starts_at_the_parents_folder(tmp_path, outside):
    recipe(tmp_path, RECIPE + "rewards: [{path: outside.py}]\n")
    (tmp_path / "in" / "child.yaml").write_text("extends: ../recipe.yaml\n")
    assert load_recipe(tmp_path / "in" / "child.yaml").rewards[0].path == str(outside)


# ---- models ----

CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class Config(LlamaConfig):
    model_type = "attack"

class Model(LlamaForCausalLM):
    config_class = Config

class Tokens(PreTrainedTokenizerFast):
    pass

def generate(*args, **kwargs):
    Path({mark!r}).touch()
"""


@pytest.fixture
def model_folder(tmp_path, tiny_model, tiny_tokenizer) -> Path:
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def with_code(folder: Path, mark: Path, *, model: bool, tokenizer: bool) -> None:
    (folder / "attack.py").write_text(CODE.format(mark=str(mark)))
    if model:
        auto = {"AutoConfig": "attack.Config", "AutoModelForCausalLM": "attack.Model"}
        change(folder / "config.json", auto_map=auto, model_type="attack", architectures=["Model"])
    if tokenizer:
        auto = {"AutoTokenizer": ["attack.Tokens", "attack.Tokens"]}
        change(folder / "tokenizer_config.json", auto_map=auto, tokenizer_class="Tokens")


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture(autouse=True)
def own_modules(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked at the terminal"))


def test_a_models_code_is_not_run(model_folder, mark):
    with_code(model_folder, mark, model=True, tokenizer=False)
    with pytest.raises(ConfigError, match="brings code of its own, which has not been run"), loading(model_folder, "x"):
        load_policy(model_folder)
    assert not mark.exists()
    load_policy(model_folder, trust_remote_code=True)
    assert mark.exists()


def test_a_tokenizers_code_is_not_run(model_folder, mark):
    with_code(model_folder, mark, model=False, tokenizer=True)
    with pytest.raises(ConfigError, match="brings code of its own"), loading(model_folder, "model"):
        load_tokenizer(model_folder)
    assert not mark.exists()
    load_tokenizer(model_folder, trust_remote_code=True)
    assert mark.exists()


def test_a_generation_loop_of_the_models_own_is_not_run(model_folder, mark):
    (model_folder / "custom_generate").mkdir()
    (model_folder / "custom_generate" / "generate.py").write_text(CODE.format(mark=str(mark)))
    load_policy(model_folder).generate(torch.ones(1, 1, dtype=torch.long), max_new_tokens=1)
    assert not mark.exists()
    load_policy(model_folder, trust_remote_code=True).generate(torch.ones(1, 1, dtype=torch.long), max_new_tokens=1)
    assert mark.exists()


def test_run_and_eval_pass_on_trust_and_nothing_else_does(model_folder, mark, tmp_path, monkeypatch, capsys):
    """Through the commands: refused before there is a run directory; run where the recipe, or the flag, says so."""
    with_code(model_folder, mark, model=True, tokenizer=True)
    monkeypatch.chdir(tmp_path)
    text = RECIPE.replace("{init: {}}", f"{{name: {model_folder}}}") + "rollout: {engine: transformers}\n"
    task = ["--task", "knights_knaves", "task.people=[2]", "task.eval=2", "--max-completion-length", "2"]
    for command in (["run", str(recipe(tmp_path, text))], ["eval", str(model_folder), *task]):
        assert main(command) == 2
        assert "brings code of its own" in capsys.readouterr().err
    assert not mark.exists()
    assert not (tmp_path / "runs").exists()
    assert main(["eval", str(model_folder), *task, "--trust-remote-code"]) == 0
    assert mark.exists()


def test_serve_trusts_only_what_it_is_told_to():
    assert not [part for part in serve_command("model") if "trust" in part]


def test_a_configurations_kernel_is_refused(model_folder):
    change(model_folder / "config.json", attn_implementation="evil/kernel")
    with pytest.raises(ConfigError, match="asks for 'evil/kernel'"):
        load_policy(model_folder)


def test_weights_that_are_pickles_are_not_read(model_folder, mark):
    (model_folder / "model.safetensors").unlink()
    torch.save({"weight": Leaves(mark)}, model_folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"), loading(model_folder, "model"):
        load_policy(model_folder)
    assert not mark.exists()


def save_adapter(base: Path, folder: Path) -> None:
    settings = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules="all-linear")
    get_peft_model(load_policy(base), settings).save_pretrained(folder)


def test_an_adapter_that_is_a_pickle_is_not_read(model_folder, mark, tmp_path):
    save_adapter(model_folder, tmp_path / "adapter")
    assert load_policy(tmp_path / "adapter").peft_config
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({"weight": Leaves(mark)}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"adapter_model.bin is a pickle"):
        load_policy(tmp_path / "adapter")
    assert not mark.exists()


def test_an_adapters_base_is_not_trusted_either(model_folder, mark, tmp_path):
    save_adapter(model_folder, tmp_path / "adapter")
    with_code(model_folder, mark, model=True, tokenizer=True)
    with pytest.raises(ConfigError, match="brings code"), loading(tmp_path / "adapter", "model"):
        load_policy(tmp_path / "adapter")
    assert not mark.exists()


def test_a_chat_template_is_in_a_sandbox(model_folder, mark):
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    system = f"{{{{ cycler.__init__.__globals__.os.system('touch {mark}') }}}}"
    for template in (reach, system):
        (model_folder / "chat_template.jinja").write_text(template)
        tokenizer = load_tokenizer(model_folder)
        assert tokenizer.chat_template == template
        with pytest.raises(Exception, match=r"unsafe|undefined|has no attribute"):
            tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert not mark.exists()


# ---- what a worker sends ----


def test_a_workers_message_cannot_run_code(mark):
    with pytest.raises(pickle.UnpicklingError, match="not plain data"):
        answers_from(pickle.dumps([Leaves(mark)]))
    assert not mark.exists()
    plain = [((0.5, {"a": 1.0}, [1, ("x", None)], "note", False), None, 0.1)]
    assert answers_from(pickle.dumps(plain)) == plain


ANSWERS_FOR_THE_WORKER = """
import contextlib, os, pickle, stat
from pathlib import Path

class Leaves:
    def __reduce__(self):
        return Path.touch, (Path({mark!r}),)

def score(completion, **row):
    message = pickle.dumps([(Leaves(), None, 0.0)])
    for descriptor in range(3, 1024):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, len(message).to_bytes(4, "big") + message)
    return 1.0
"""


def test_a_worker_that_writes_a_pickle_is_found_out(tmp_path, mark):
    (tmp_path / "hostile.py").write_text(ANSWERS_FOR_THE_WORKER.format(mark=str(mark)))
    with RewardPool([load_reward(RewardConfig(path="hostile.py"), tmp_path)], workers=1) as pool:
        (outcome,) = pool.score(0, ["x"], [{}])
    assert "is no answer" in outcome.error
    assert not mark.exists()


# ---- the report ----

HOSTILE = [
    "<script>attack()</script>", "</pre></details><img src=x onerror=attack()>", "\"'><svg onload=attack()>",
    "]]></title></script><script>attack()", "{{ 7 * 7 }}{% raw %}", "<!--", "&lt;b&gt;",
]  # fmt: skip


class Elements(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        self.tags.append("comment")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_was_written_by_others_becomes_html(tmp_path, text):
    harmless = Elements(written_page(tmp_path / "harmless", "words"))
    page = Elements(written_page(tmp_path / text.replace("/", "_"), text))
    assert page.tags == harmless.tags
    assert page.attributes == harmless.attributes
    assert "".join(page.texts).count(text) >= 6, "prompt, completion, notes, slices and recipe show it as text"


def test_characters_that_turn_text_around_are_shown_as_numbers(tmp_path):
    page = written_page(tmp_path / "run", "abc\u202edcba\u2066\x00\x1b[31m")
    assert not set("\u202e\u2066\x00\x1b") & set(page)
    assert "abc&lt;U+202E&gt;dcba&lt;U+2066&gt;&lt;U+0000&gt;&lt;U+001B&gt;[31m" in page


def written_page(folder: Path, text: str) -> str:
    """A report where everything that a recipe, a model or a reward can write is `text`."""
    with RunDir.open(folder, {"model": {"name": text}, "task": {"name": text, text: text}}, {text: text}) as run:
        row = {
            "row": 0, "prompt": text, "completion": text, "sample": None, "score": 0.0, "passed": False, "note": text,
            "error": None, "parsed": text, "length": 3, "truncated": False,
        }  # fmt: skip
        rows = [row, {**row, "row": 1, "passed": True, "score": 1.0}, {**row, "row": 2, "error": text}]
        for stage, step in (("start", 0), ("final", 2)):
            line = {
                "stage": stage, "step": step, "pass@1": 0.5, "ci95": [0.1, 0.9], "n": 2, "mean_length": 3.0,
                "by": {text: {text: {"n": 2, "pass@1": 0.5}}}, "pass@k": {text: 0.5},
            }  # fmt: skip
            run.evaluation(line, rows)
        run.step({
            "stage": "hybrid", "step": 1, "mix": {"sft": 1.0, "grpo": 0.0}, "reason": text, "p": 0.5, "sft_loss": 1.0,
            "seconds": {"total": 1.0, text: 2.0}, "tokens": {text: 3}, "rollouts": 4,
        })  # fmt: skip
    return write_report(folder).read_text(encoding="utf-8")


# ---- secrets ----


def test_secrets_are_masked_by_their_key_or_their_looks():
    token = "hf_" + "a" * 30
    hidden = without_secrets(
        {"hub_token": "one", "kwargs": {"api_key": "two", "password": "three"}, "list": [token], "eos_token": "<end>",
         "url": "http://me:four@host:1/x", "max_tokens": 5, "name": "five"}
    )  # fmt: skip
    text = json.dumps(hidden)
    assert not any(secret in text for secret in ("one", "two", "three", "four", token))
    assert hidden["eos_token"] == "<end>"
    assert (hidden["max_tokens"], hidden["name"]) == (5, "five")
    assert hidden["url"].endswith("@host:1/x")
    assert without_secrets(hidden) == hidden, "what is hidden stays as it is"
    assert without_secrets({"token": "x"}) != without_secrets({"token": "y"}), "a change still shows"


def test_secrets_of_a_command_are_masked():
    token = "hf_" + "a" * 30
    shown = command_without_secrets(
        ["run", "r.yaml", "--hub_token", "one", "--token=two", "rewards.0.kwargs.api_key=three", f"model={token}",
         "rewards=[{path: x.py, kwargs: {api_key: four, n: 3}}]", "warmup.args.eos_token=<end>", "hybrid.steps=3"]
    )  # fmt: skip
    assert not any(secret in " ".join(shown) for secret in ("one", "two", "three", "four", token))
    assert shown[0:3] == ["run", "r.yaml", "--hub_token"]
    assert shown[-2:] == ["warmup.args.eos_token=<end>", "hybrid.steps=3"]


def test_a_run_writes_no_secret_down(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "e" * 30)
    monkeypatch.setenv("MY_PASSWORD", "unlikely-words")
    monkeypatch.setattr(sys, "argv", ["posttrain", "run", "r.yaml", "rewards.0.kwargs.api_key=unlikely-key"])
    described = {"rewards": [{"name": "x", "kwargs": {"api_key": "unlikely-key"}}]}
    for _ in range(2):  # the second time it is the same recipe, and resumed
        with RunDir.open(tmp_path / "run", described, {}) as run:
            assert run.changes == []
    write_report(tmp_path / "run")
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert not any(secret in text for secret in ("unlikely-key", "unlikely-words", "eeeeee")), file
    assert "(secret " in read_recipe(run.recipe_file)["rewards"][0]["kwargs"]["api_key"]
    assert "unlikely" not in json.dumps(environment.describe())
