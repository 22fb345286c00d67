"""`configs/serving/`: what the server would read is what it can read."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from lumbar_tf.predict import PredictOptions
from lumbar_tf.serving.connection import ConnectionOptions

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "configs" / "serving"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVERS = [COMPOSE["services"][name] for name in ("cpu", "gpu")]
FLAGS = dict(flag.removeprefix("--").split("=", 1) for flag in COMPOSE["x-server"]["command"])

_FIELD = descriptor_pb2.FieldDescriptorProto
_STRING, _BOOL, _INT64, _MESSAGE = (
    _FIELD.TYPE_STRING,
    _FIELD.TYPE_BOOL,
    _FIELD.TYPE_INT64,
    _FIELD.TYPE_MESSAGE,
)
_WRAPPED = ".google.protobuf.Int64Value"
#: Messages that tensorflow-serving-api leaves out, field for field as in the server's
#: servables/tensorflow/session_bundle_config.proto, config/monitoring_config.proto and ssl_config.proto.
MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "BatchingParameters": [
        ("max_batch_size", _MESSAGE, _WRAPPED),
        ("batch_timeout_micros", _MESSAGE, _WRAPPED),
        ("max_enqueued_batches", _MESSAGE, _WRAPPED),
        ("num_batch_threads", _MESSAGE, _WRAPPED),
        ("thread_pool_name", _MESSAGE, ".google.protobuf.StringValue"),
        ("allowed_batch_sizes", _INT64, ""),
        ("pad_variable_length_inputs", _BOOL, ""),
    ],
    "PrometheusConfig": [("enable", _BOOL, ""), ("path", _STRING, "")],
    "MonitoringConfig": [("prometheus_config", _MESSAGE, ".stand_in.PrometheusConfig")],
    "SSLConfig": [
        ("server_key", _STRING, ""),
        ("server_cert", _STRING, ""),
        ("custom_ca", _STRING, ""),
        ("client_verify", _BOOL, ""),
    ],
}


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="stand_in.proto",
        package="stand_in",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, type_name) in enumerate(fields, start=1):
            is_list = field == "allowed_batch_sizes"
            label = _FIELD.LABEL_REPEATED if is_list else _FIELD.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"stand_in.{name}"))
        for name in MESSAGES
    }


CLASSES = {**_declare(), "ModelServerConfig": model_server_config_pb2.ModelServerConfig}


def _parse(name: str, message: str) -> Any:
    return text_format.Parse((FOLDER / name).read_text(), CLASSES[message]())


def test_the_models_and_their_labels_are_a_model_server_config() -> None:
    (model,) = _parse("models.config", "ModelServerConfig").model_config_list.config
    assert model.name == PredictOptions.model_fields["server_model"].default
    assert model.model_platform == "tensorflow"
    # A label names a version that is served, and the health check asks for one that exists.
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)
    assert "/labels/stable/metadata " in COMPOSE["x-server"]["healthcheck"]["test"][-1]
    assert "stable" in model.version_labels
    mounts = [volume.split(":") for volume in COMPOSE["x-server"]["volumes"]]
    assert model.base_path in [target for _, target, _ in mounts]


def test_the_second_version_that_a_comment_proposes_parses_too() -> None:
    text = (FOLDER / "models.config").read_text()
    text = re.sub(
        r"^    # (version_labels \{|  key: .*|  value: .*|\})$", r"    \1", text, flags=re.MULTILINE
    )
    text = text.replace("versions: 1\n", "versions: 1\n        versions: 2\n")
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


def test_batching_monitoring_and_tls_parse_as_the_servers_messages() -> None:
    batching = _parse("batching.config", "BatchingParameters")
    assert 1 < batching.max_batch_size.value <= 8
    assert batching.num_batch_threads.value >= 1
    assert not batching.allowed_batch_sizes
    monitoring = _parse("monitoring.config", "MonitoringConfig").prometheus_config
    assert monitoring.enable
    (job,) = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["metrics_path"] == monitoring.path
    assert job["static_configs"][0]["targets"] == ["serving:8501"]
    assert _parse("ssl.config", "SSLConfig").client_verify


def test_the_messages_refuse_what_they_do_not_know() -> None:
    for name in CLASSES:
        with pytest.raises(text_format.ParseError):
            text_format.Parse("max_batch_sizes { value: 4 }", CLASSES[name]())


def test_both_profiles_serve_the_same_version_with_files_that_exist() -> None:
    assert [server["image"] for server in SERVERS] == [
        "tensorflow/serving:2.20.0",
        "tensorflow/serving:2.20.0-gpu",
    ]
    assert [server["profiles"] for server in SERVERS] == [["cpu"], ["gpu"]]
    for flag, value in FLAGS.items():
        if flag.endswith("_file"):
            assert (FOLDER / Path(value).relative_to("/config")).is_file(), flag
    assert "/config" in [volume.split(":")[1] for volume in COMPOSE["x-server"]["volumes"]]
    (device,) = SERVERS[1]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    # A merge replaces whole maps: the GPU's environment must repeat the shared one.
    assert COMPOSE["x-server"]["environment"].items() <= SERVERS[1]["environment"].items()


def test_the_ports_are_of_this_machine_only() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_sizes_and_times_are_those_of_the_client() -> None:
    fields = ConnectionOptions.__dataclass_fields__
    sizes = dict(argument.split("=") for argument in FLAGS["grpc_channel_arguments"].split(","))
    assert int(sizes["grpc.max_receive_message_length"]) == fields["max_request_bytes"].default
    assert int(sizes["grpc.max_send_message_length"]) == fields["max_response_bytes"].default
    assert int(FLAGS["rest_api_timeout_in_ms"]) == 1000 * PredictOptions.model_fields["deadline_s"].default


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_each_file_says_its_command_and_what_was_not_run(path: Path) -> None:
    comments = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "Not run here" in comments
    assert re.search(r"tensorflow_model_server --|docker compose ", comments)
