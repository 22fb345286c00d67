// Loads an exported bundle as TF Serving does and replays its request files.
//
// TF Serving calls tensorflow::LoadSavedModel with the tag "serve", makes a session, and feeds it what a
// signature names; so does this program, against the headers and libraries of the TensorFlow wheel. It is
// no server: batching, gRPC and REST are not tried here.
//
// Usage: loader BUNDLE FILE [FILE ...]
//
// A FILE is a TFRecord of tensorflow.serving.PredictionLog. Where a log holds a response, the answer is
// compared with it. Prints a line an output: FILE signature output requests largest-difference. Every
// signature of the bundle must be asked at least once. Exit status: 0 all asked, 1 anything else; whether a
// difference is small enough is for the caller to say.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/unknown_field_set.h"
#include "tensorflow/c/c_api.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/lib/io/record_reader.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/public/session_options.h"

namespace {

using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;
using Tensors = std::map<std::string, tensorflow::Tensor>;

// What SavedModels for serving are tagged with; tag_constants.h is in no wheel.
constexpr char kServeTag[] = "serve";

// Field numbers of tensorflow_serving/apis/{prediction_log,predict,model}.proto, whose generated code is in
// no TensorFlow wheel.
constexpr int kPredictLog = 6;
constexpr int kRequest = 1, kResponse = 2;
constexpr int kModelSpec = 1, kInputs = 2, kOutputs = 1;
constexpr int kSignatureName = 3;
constexpr int kMapKey = 1, kMapValue = 2;

struct Request {
  std::string signature;
  Tensors inputs;
  Tensors expected;  // empty in a warm-up request
};

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "loader: %s\n", what.c_str());
  std::exit(1);
}

void Check(const absl::Status& status, const std::string& what) {
  if (!status.ok()) Fail(what + ": " + std::string(status.message()));
}

// The messages or strings of one field.
std::vector<std::string> Fields(const std::string& bytes, int number) {
  UnknownFieldSet fields;
  if (!fields.ParseFromString(bytes)) Fail("a message is not in protobuf's wire format");
  std::vector<std::string> found;
  for (int place = 0; place < fields.field_count(); ++place) {
    const UnknownField& field = fields.field(place);
    if (field.number() != number) continue;
    if (field.type() != UnknownField::TYPE_LENGTH_DELIMITED) Fail("a field is no message and no string");
    found.emplace_back(field.length_delimited());
  }
  return found;
}

// The last one of a field, as protobuf has it; empty where there is none.
std::string Field(const std::string& bytes, int number) {
  const std::vector<std::string> found = Fields(bytes, number);
  return found.empty() ? std::string() : found.back();
}

// A map<string, TensorProto>.
Tensors ParseTensors(const std::string& bytes, int number) {
  Tensors tensors;
  for (const std::string& entry : Fields(bytes, number)) {
    tensorflow::TensorProto proto;
    tensorflow::Tensor tensor;
    if (!proto.ParseFromString(Field(entry, kMapValue)) || !tensor.FromProto(proto)) {
      Fail("a request or response holds what is no tensor: " + Field(entry, kMapKey));
    }
    tensors.emplace(Field(entry, kMapKey), std::move(tensor));
  }
  return tensors;
}

std::vector<Request> ReadRequests(const std::string& path) {
  std::unique_ptr<tensorflow::RandomAccessFile> file;
  Check(tensorflow::Env::Default()->NewRandomAccessFile(path, &file), path);
  tensorflow::io::SequentialRecordReader reader(file.get());
  std::vector<Request> requests;
  tensorflow::tstring record;
  for (;;) {
    const absl::Status status = reader.ReadRecord(&record);
    if (absl::IsOutOfRange(status)) break;
    Check(status, path);
    const std::string log = Field(std::string(record), kPredictLog);
    const std::string request = Field(log, kRequest);
    requests.push_back({Field(Field(request, kModelSpec), kSignatureName), ParseTensors(request, kInputs),
                        ParseTensors(Field(log, kResponse), kOutputs)});
  }
  if (requests.empty()) Fail(path + " holds no request");
  return requests;
}

// What differs most; infinite where types or shapes do, or one of two numbers is not finite.
template <typename T>
double Difference(const tensorflow::Tensor& got, const tensorflow::Tensor& expected) {
  const auto left = got.flat<T>(), right = expected.flat<T>();
  double largest = 0.0;
  for (int64_t place = 0; place < left.size(); ++place) {
    const double one = static_cast<double>(left(place)), other = static_cast<double>(right(place));
    if (std::isnan(one) && std::isnan(other)) continue;
    const double difference = std::abs(one - other);
    largest = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(largest, difference);
  }
  return largest;
}

double Compare(const tensorflow::Tensor& got, const tensorflow::Tensor& expected) {
  if (got.dtype() != expected.dtype() || got.shape() != expected.shape()) {
    return std::numeric_limits<double>::infinity();
  }
  switch (got.dtype()) {
    case tensorflow::DT_FLOAT:
      return Difference<float>(got, expected);
    case tensorflow::DT_BOOL:
      return Difference<bool>(got, expected);
    case tensorflow::DT_INT32:
      return Difference<int32_t>(got, expected);
    case tensorflow::DT_STRING: {
      const auto left = got.flat<tensorflow::tstring>(), right = expected.flat<tensorflow::tstring>();
      for (int64_t place = 0; place < left.size(); ++place) {
        if (left(place) != right(place)) return std::numeric_limits<double>::infinity();
      }
      return 0.0;
    }
    default:
      Fail("an output is of a type that is not compared: " + tensorflow::DataTypeString(got.dtype()));
  }
}

// Feeds a signature's inputs and fetches all of its outputs.
Tensors Ask(const tensorflow::SavedModelBundle& bundle, const Request& request) {
  const auto found = bundle.GetSignatures().find(request.signature);
  if (found == bundle.GetSignatures().end()) Fail("the bundle has no signature " + request.signature);
  std::vector<std::pair<std::string, tensorflow::Tensor>> feeds;
  for (const auto& [name, tensor] : request.inputs) {
    const auto input = found->second.inputs().find(name);
    if (input == found->second.inputs().end()) Fail(request.signature + " has no input " + name);
    feeds.emplace_back(input->second.name(), tensor);
  }
  std::vector<std::string> names, fetches;
  for (const auto& [name, info] : found->second.outputs()) {
    names.push_back(name);
    fetches.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> values;
  Check(bundle.GetSession()->Run(feeds, fetches, {}, &values), "asking " + request.signature);
  Tensors answers;
  for (size_t place = 0; place < names.size(); ++place) answers.emplace(names[place], values[place]);
  return answers;
}

// Session options of a server without XLA: what is compiled just in time is not what was tested.
tensorflow::SessionOptions ServerOptions() {
  tensorflow::SessionOptions options;
  auto* optimizer = options.config.mutable_graph_options()->mutable_optimizer_options();
  optimizer->set_global_jit_level(tensorflow::OptimizerOptions::OFF);
  return options;
}

struct Tally {
  int requests = 0;
  double largest = 0.0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) Fail("usage: loader BUNDLE FILE [FILE ...]");
  tensorflow::SavedModelBundle bundle;
  Check(tensorflow::LoadSavedModel(ServerOptions(), tensorflow::RunOptions(), argv[1],
                                   {kServeTag}, &bundle),
        argv[1]);
  std::printf("TensorFlow %s\n", TF_Version());
  std::set<std::string> asked;
  for (int place = 2; place < argc; ++place) {
    std::map<std::pair<std::string, std::string>, Tally> tallies;
    for (const Request& request : ReadRequests(argv[place])) {
      asked.insert(request.signature);
      const Tensors answers = Ask(bundle, request);
      for (const auto& [name, expected] : request.expected) {
        if (answers.count(name) == 0) Fail(request.signature + " has no output " + name);
      }
      for (const auto& [name, answer] : answers) {
        Tally& tally = tallies[{request.signature, name}];
        ++tally.requests;
        const auto expected = request.expected.find(name);
        if (expected == request.expected.end()) {
          if (!request.expected.empty()) Fail("a response lacks the output " + name);
          continue;
        }
        tally.largest = std::max(tally.largest, Compare(answer, expected->second));
      }
    }
    for (const auto& [key, tally] : tallies) {
      std::printf("%s %s %s %d %.3g\n", argv[place], key.first.c_str(), key.second.c_str(), tally.requests,
                  tally.largest);
    }
  }
  for (const auto& [name, signature] : bundle.GetSignatures()) {
    // What restores variables is no signature that is served.
    if (name != "__saved_model_init_op" && asked.count(name) == 0) Fail("no request asks " + name);
  }
  return 0;
}
