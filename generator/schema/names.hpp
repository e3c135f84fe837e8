// What names may look like, and what they are called in C++ and in the settings.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pipegen::gen {

bool is_type_name(std::string_view text);      // "EventHeader"
bool is_field_name(std::string_view text);     // "page_number"
bool is_kebab_name(std::string_view text);     // "pdf-to-png": pipelines, stages, uploads
bool is_resource_name(std::string_view text);  // "TTS_JOBS", "tts-workers": streams, buckets, durables
bool is_package_name(std::string_view text);   // "libleptonica-dev": of Debian
bool is_enum_value(std::string_view text);
bool is_value_name(std::string_view text);  // "width", "pageNumber": of `values:`
bool is_field_path(std::string_view text);  // "header.workflow_id"

std::string cpp_field_name(const std::string& name);      // "page_number"; "class_" for "class"
std::string cpp_namespace_name(const std::string& name);  // "pdf_to_png"; "time_" for "time"
std::string cpp_enum_name(std::string_view value);        // "kTop"
std::string cpp_tag_name(std::string_view bucket);        // "TextFiles"
std::string camel_case(std::string_view field);           // "pageNumber"

/// Whether a record, enum, event or tag cannot be called so: it is a macro of the C or C++ library.
bool is_macro_name(std::string_view type_name);

/// Why a stage cannot be called so; empty when it can.
std::string reserved_stage_name(std::string_view name);

std::string lower_case(std::string_view text);
/// "pdf_jobs" from "PDF-JOBS".
std::string setting_word(std::string_view name);
/// The same without the last word when that is one of `droppable` (lower case) and not the only one.
std::string setting_word_without(std::string_view name, const std::vector<std::string>& droppable);

std::vector<std::string> split(std::string_view text, char separator);

}  // namespace pipegen::gen
