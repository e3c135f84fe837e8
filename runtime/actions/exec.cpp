#include "pipegen/actions/exec.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "actions/text.hpp"
#include "core/trace.hpp"
#include "pipegen/process.hpp"

namespace pipegen::actions {

namespace {

/// ".png" of "pictures/7.png": some programs go by it. Nothing that could be more than the end of a file's name.
std::string extension_of(const ObjectRef& object) {
  const std::size_t dot = object.name.rfind('.');
  if (dot == std::string::npos || object.name.size() - dot > 17) return "";
  const std::string extension = object.name.substr(dot + 1);
  const bool plain = std::ranges::all_of(extension, [](unsigned char c) { return std::isalnum(c) != 0; });
  return plain && !extension.empty() ? "." + extension : "";
}

}  // namespace

ExecResult exec(Context& context, const Exec& options) {
  const std::filesystem::path scratch = context.scratch();
  std::filesystem::path input_file, output_file;
  Placeholders values = placeholders(options.values);
  if (options.input) {
    input_file = scratch / ("input" + extension_of(*options.input));
    values["input"] = input_file.string();
  }
  if (options.output) {
    output_file = scratch / ("output" + extension_of(*options.output));
    std::filesystem::remove(output_file);  // of another program in the same call
    values["output"] = output_file.string();
  }
  const Arguments arguments = fill_arguments(options.program, values);
  const std::string& name = arguments.list.front();
  const bool writes_file = arguments.used.contains("output");
  if (options.text && options.output && !writes_file) {
    throw ConfigError("the standard output of " + name + " is wanted both as an object and as text: give it {output}");
  }

  ProgramOptions program;
  program.stop = context.stop_token();
  if (options.input) {
    context.objects(options.input->bucket).get_file(options.input->name, input_file);
    if (!arguments.used.contains("input")) program.input_file = input_file;
  }
  if (options.text) {
    program.max_output = kMaxText;
  } else {
    program.output_file = options.output && !writes_file ? output_file : "/dev/null";
  }
  trace::Span span =
      trace::Span::of_current(trace::Kind::kInternal, "exec", std::filesystem::path(name).filename().string());
  const ProgramResult result = run_program(arguments.list, program);
  if (result.exit_status != 0) span.fail("exit", "it ended with status " + std::to_string(result.exit_status));
  span.end();
  context.throw_if_stopped();
  throw_if_failed(name, result);

  ExecResult out;
  if (options.text) {
    std::string_view text = text_of(result.output);
    if (text.ends_with('\n')) text.remove_suffix(1);
    out.text = checked_text(name, text);
  }
  if (options.output) {
    if (!std::filesystem::is_regular_file(output_file)) {
      throw TransientError(name + " ended well but did not write {output}");
    }
    context.objects(options.output->bucket).put_file(options.output->name, output_file);
  }
  return out;
}

}  // namespace pipegen::actions
