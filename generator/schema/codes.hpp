// The codes of diagnostics. They are promises: never reused, never given another meaning. schemas/DIAGNOSTICS.md lists
// them.
#pragma once

#include <string_view>

namespace pipegen::gen::code {

// Files and their YAML.
inline constexpr std::string_view kUnreadable = "PG0101";
inline constexpr std::string_view kNotText = "PG0102";
inline constexpr std::string_view kSyntax = "PG0103";
inline constexpr std::string_view kDuplicateKey = "PG0104";
inline constexpr std::string_view kTooLarge = "PG0105";
inline constexpr std::string_view kNotInLanguage = "PG0106";
inline constexpr std::string_view kHeader = "PG0107";
inline constexpr std::string_view kShape = "PG0108";
inline constexpr std::string_view kUnknownKey = "PG0109";
inline constexpr std::string_view kMissingKey = "PG0110";
inline constexpr std::string_view kNoValue = "PG0111";
inline constexpr std::string_view kNotSupported = "PG0112";
inline constexpr std::string_view kImport = "PG0113";
inline constexpr std::string_view kValue = "PG0114";

// Names.
inline constexpr std::string_view kBadName = "PG0201";
inline constexpr std::string_view kDuplicate = "PG0202";
inline constexpr std::string_view kUnknownName = "PG0203";
inline constexpr std::string_view kClash = "PG0204";
inline constexpr std::string_view kReserved = "PG0205";
inline constexpr std::string_view kNoPipeline = "PG0206";
inline constexpr std::string_view kUnused = "PG0207";
inline constexpr std::string_view kSettingClash = "PG0208";

// Types and fields.
inline constexpr std::string_view kType = "PG0301";
inline constexpr std::string_view kOptionalItem = "PG0302";
inline constexpr std::string_view kConstraintType = "PG0303";
inline constexpr std::string_view kConstraintValue = "PG0304";
inline constexpr std::string_view kDefault = "PG0305";
inline constexpr std::string_view kPattern = "PG0306";
inline constexpr std::string_view kContainsItself = "PG0307";
inline constexpr std::string_view kJsonName = "PG0308";
inline constexpr std::string_view kFresh = "PG0309";
inline constexpr std::string_view kSensitive = "PG0311";

// Streams, buckets, events.
inline constexpr std::string_view kSubject = "PG0401";
inline constexpr std::string_view kPlaceholder = "PG0402";
inline constexpr std::string_view kParameter = "PG0403";
inline constexpr std::string_view kSubjectOverlap = "PG0404";
inline constexpr std::string_view kStreamOptions = "PG0405";
inline constexpr std::string_view kEventShape = "PG0406";
inline constexpr std::string_view kNoParameter = "PG0408";

// Stages.
inline constexpr std::string_view kUnknownAction = "PG0501";
inline constexpr std::string_view kUnknownParameter = "PG0502";
inline constexpr std::string_view kMissingParameter = "PG0503";
inline constexpr std::string_view kMisfit = "PG0504";
inline constexpr std::string_view kNoSource = "PG0505";
inline constexpr std::string_view kUnknownField = "PG0506";
inline constexpr std::string_view kExpression = "PG0507";
inline constexpr std::string_view kKeyTemplate = "PG0508";
inline constexpr std::string_view kCollect = "PG0509";
inline constexpr std::string_view kProduces = "PG0510";
inline constexpr std::string_view kNotForCustom = "PG0511";
inline constexpr std::string_view kTwoSources = "PG0512";
inline constexpr std::string_view kUnknownPlaceholder = "PG0513";

// How the stages fit together.
inline constexpr std::string_view kNotConsumed = "PG0601";
inline constexpr std::string_view kNotProduced = "PG0602";
inline constexpr std::string_view kPilesUp = "PG0603";
inline constexpr std::string_view kSameDurable = "PG0604";
inline constexpr std::string_view kTwoConsumers = "PG0605";
inline constexpr std::string_view kCycle = "PG0606";
inline constexpr std::string_view kWorkflowId = "PG0607";

// The HTTP API.
inline constexpr std::string_view kUpload = "PG0701";
inline constexpr std::string_view kRoute = "PG0702";

// Entities.
inline constexpr std::string_view kEntityKey = "PG0901";
inline constexpr std::string_view kEntityUse = "PG0902";
inline constexpr std::string_view kTable = "PG0903";
inline constexpr std::string_view kReference = "PG0904";
inline constexpr std::string_view kSince = "PG0905";
inline constexpr std::string_view kDerived = "PG0906";
inline constexpr std::string_view kReferenceCycle = "PG0907";
inline constexpr std::string_view kTransform = "PG0908";
inline constexpr std::string_view kRepeatedFor = "PG0909";
inline constexpr std::string_view kTwoWriters = "PG0910";
inline constexpr std::string_view kColumn = "PG0911";
inline constexpr std::string_view kPersist = "PG0912";

// The output.
inline constexpr std::string_view kNothingToGenerate = "PG0801";
inline constexpr std::string_view kWorkspace = "PG0802";

}  // namespace pipegen::gen::code
