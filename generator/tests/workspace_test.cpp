#include "workspace/workspace.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "workspace/disk.hpp"

namespace pipegen::gen {
namespace {

namespace fs = std::filesystem;
using Snapshot = std::map<std::string, std::string>;  // path to content; folders end in '/'

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const fs::path& path, const std::string& content) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

/// Everything below `root`, the manifest and any left-overs in .pipegen/ too.
Snapshot snapshot(const fs::path& root) {
  Snapshot result;
  if (!fs::exists(root)) return result;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string name = entry.path().lexically_relative(root).generic_string();
    if (entry.is_directory()) {
      result[name + "/"];
    } else {
      result[name] = read(entry.path());
    }
  }
  return result;
}

const WriteOptions kEverything{.covers = [](const std::string&) { return true; }};
const WriteOptions kForce{.force = true, .covers = [](const std::string&) { return true; }};

using Paths = std::vector<std::string>;

class Workspace : public testing::Test {
 protected:
  Workspace() {
    // Thousands of fsyncs: in memory, when there is such a place.
    const fs::path base = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path();
    std::string name = (base / "pipegen-workspace-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    root_ = folder_ / "services";
  }
  ~Workspace() override {
    disk::before_step = nullptr;
    fs::remove_all(folder_);
  }

  template <typename Place>
  WriteReport write(const Place& place, const FileSet& files, const WriteOptions& options,
                    const Services& services = {}) {
    return gen::write(place, Output{.pipeline = "demo", .services = services, .files = files}, options);
  }

  std::string error_of(const FileSet& files, const WriteOptions& options = kEverything) {
    try {
      write(root_, files, options);
    } catch (const WorkspaceError& error) {
      return error.what();
    }
    return "no error";
  }

  fs::path folder_, root_;
};

const FileSet kFiles{
    {"CMakeLists.txt", {"top", Owner::kPipegen}},
    {"project.toml", {"settings", Owner::kShared}},
    {"tts/CMakeLists.txt", {"service", Owner::kPipegen}},
    {"tts/generated/main.cpp", {"int main() {}\n", Owner::kPipegen}},
    {"tts/src/handler.cpp", {"// yours\n", Owner::kUser}},
};

TEST_F(Workspace, a_new_workspace_gets_every_file_and_a_manifest) {
  const WriteReport report = write(root_, kFiles, kEverything);
  EXPECT_EQ(report.created, (Paths{"CMakeLists.txt", "project.toml", "tts/CMakeLists.txt", "tts/generated/main.cpp",
                                   "tts/src/handler.cpp"}));
  const Snapshot now = snapshot(root_);
  EXPECT_EQ(now.at("tts/generated/main.cpp"), "int main() {}\n");
  const auto manifest = nlohmann::json::parse(now.at(".pipegen/manifest.json"));
  EXPECT_EQ(manifest["pipegen"], 1);
  EXPECT_EQ(manifest["files"].size(), 5U);
  EXPECT_EQ(manifest["files"]["tts/src/handler.cpp"]["owner"], "user");
  EXPECT_EQ(manifest["files"]["CMakeLists.txt"]["sha256"],
            "28720365c5e7476a011e4f43ac003ee5f16247a263b9d623aa85ed311d73bf39");
  EXPECT_EQ(now.count(".pipegen/staging/"), 0U);
  EXPECT_EQ(now.count(".pipegen/journal"), 0U);
  EXPECT_EQ(now.count(".pipegen/lock"), 0U);
}

TEST_F(Workspace, the_same_files_touch_nothing) {
  write(root_, kFiles, kEverything);
  const auto before = disk::status(root_ / "tts/generated/main.cpp");
  const auto manifest_before = disk::status(root_ / ".pipegen/manifest.json");
  const WriteReport report = write(root_, kFiles, kEverything);
  EXPECT_TRUE(report.created.empty() && report.updated.empty() && report.removed.empty());
  EXPECT_EQ(report.unchanged.size(), 4U);
  EXPECT_EQ(report.kept, Paths{"tts/src/handler.cpp"});
  const auto after = disk::status(root_ / "tts/generated/main.cpp");
  EXPECT_EQ(before->st_ino, after->st_ino);
  EXPECT_EQ(before->st_mtim.tv_nsec, after->st_mtim.tv_nsec);
  EXPECT_EQ(manifest_before->st_ino, disk::status(root_ / ".pipegen/manifest.json")->st_ino);
}

TEST_F(Workspace, only_files_whose_content_changes_are_touched) {
  write(root_, kFiles, kEverything);
  const auto before = disk::status(root_ / "CMakeLists.txt");
  fs::permissions(root_ / "tts/generated/main.cpp", fs::perms(0640));
  FileSet files = kFiles;
  files["tts/generated/main.cpp"].content = "int main() { return 0; }\n";
  const WriteReport report = write(root_, files, kEverything);
  EXPECT_EQ(report.updated, Paths{"tts/generated/main.cpp"});
  EXPECT_EQ(read(root_ / "tts/generated/main.cpp"), "int main() { return 0; }\n");
  EXPECT_EQ(disk::status(root_ / "tts/generated/main.cpp")->st_mode & 0777, 0640U);
  EXPECT_EQ(before->st_ino, disk::status(root_ / "CMakeLists.txt")->st_ino);
}

TEST_F(Workspace, a_file_of_the_users_is_never_written_over) {
  write(root_, kFiles, kEverything);
  put(root_ / "tts/src/handler.cpp", "my work");
  FileSet files = kFiles;
  files["tts/src/handler.cpp"].content = "// another scaffold\n";
  EXPECT_EQ(write(root_, files, kForce).kept, Paths{"tts/src/handler.cpp"});
  EXPECT_EQ(read(root_ / "tts/src/handler.cpp"), "my work");
}

TEST_F(Workspace, a_file_of_the_users_that_was_there_first_is_kept) {
  put(root_ / "tts/src/handler.cpp", "my work");
  EXPECT_EQ(write(root_, kFiles, kEverything).kept, Paths{"tts/src/handler.cpp"});
  EXPECT_EQ(read(root_ / "tts/src/handler.cpp"), "my work");
}

TEST_F(Workspace, a_file_that_somebody_deleted_comes_back) {
  write(root_, kFiles, kEverything);
  fs::remove(root_ / "tts/src/handler.cpp");
  fs::remove(root_ / "tts/CMakeLists.txt");
  EXPECT_EQ(write(root_, kFiles, kEverything).created, (Paths{"tts/CMakeLists.txt", "tts/src/handler.cpp"}));
}

TEST_F(Workspace, a_shared_file_is_updated_until_somebody_edits_it) {
  write(root_, kFiles, kEverything);
  FileSet files = kFiles;
  files["project.toml"].content = "settings 2";
  EXPECT_EQ(write(root_, files, kEverything).updated, Paths{"project.toml"});

  put(root_ / "project.toml", "settings 2, mine");
  files["project.toml"].content = "settings 3";
  for (const WriteOptions* options : {&kEverything, &kForce}) {
    const WriteReport report = write(root_, files, *options);
    EXPECT_EQ(report.kept, (Paths{"project.toml", "tts/src/handler.cpp"}));
    EXPECT_EQ(read(root_ / "project.toml"), "settings 2, mine");
  }
  put(root_ / "project.toml", "settings 2");  // the edit is taken back
  EXPECT_EQ(write(root_, files, kEverything).updated, Paths{"project.toml"});
}

TEST_F(Workspace, an_edited_generated_file_stops_the_run_and_every_one_is_named) {
  write(root_, kFiles, kEverything);
  put(root_ / "tts/generated/main.cpp", "edited");
  put(root_ / "CMakeLists.txt", "edited too");
  FileSet files = kFiles;
  files["tts/CMakeLists.txt"].content = "service 2";
  files["new/CMakeLists.txt"].content = "new";
  const Snapshot before = snapshot(root_);
  const std::string error = error_of(files);
  EXPECT_NE(error.find((root_ / "tts/generated/main.cpp").string()), std::string::npos) << error;
  EXPECT_NE(error.find((root_ / "CMakeLists.txt").string()), std::string::npos) << error;
  EXPECT_NE(error.find("--force"), std::string::npos) << error;
  EXPECT_EQ(snapshot(root_), before);

  EXPECT_EQ(write(root_, files, kForce).updated,
            (Paths{"CMakeLists.txt", "tts/CMakeLists.txt", "tts/generated/main.cpp"}));
  EXPECT_EQ(read(root_ / "CMakeLists.txt"), "top");
}

TEST_F(Workspace, an_edit_that_is_what_would_be_generated_is_no_edit) {
  write(root_, kFiles, kEverything);
  FileSet files = kFiles;
  files["CMakeLists.txt"].content = "top 2";
  put(root_ / "CMakeLists.txt", "top 2");
  EXPECT_TRUE(write(root_, files, kEverything).updated.empty());
  files["CMakeLists.txt"].content = "top 3";
  EXPECT_EQ(write(root_, files, kEverything).updated, Paths{"CMakeLists.txt"});
}

TEST_F(Workspace, a_folder_of_somebody_elses_is_fine_unless_a_file_is_in_the_way) {
  put(root_ / "notes.txt", "mine");
  EXPECT_EQ(write(root_, kFiles, kEverything).created.size(), 5U);
  EXPECT_EQ(read(root_ / "notes.txt"), "mine");

  fs::remove_all(root_);
  put(root_ / "CMakeLists.txt", "mine");
  const Snapshot before = snapshot(root_);
  const std::string error = error_of(kFiles);
  EXPECT_NE(error.find("pipegen did not write"), std::string::npos) << error;
  EXPECT_EQ(snapshot(root_), before);
}

TEST_F(Workspace, files_that_are_no_longer_generated_go_with_their_empty_folders) {
  write(root_, kFiles, kEverything);
  fs::remove(root_ / "tts/src/handler.cpp");
  const WriteReport report = write(root_, {{"CMakeLists.txt", {"top", Owner::kPipegen}}}, kEverything);
  EXPECT_EQ(report.removed, (Paths{"project.toml", "tts/CMakeLists.txt", "tts/generated/main.cpp"}));
  EXPECT_FALSE(fs::exists(root_ / "tts/generated"));
  EXPECT_TRUE(fs::exists(root_ / "tts/src")) << "nothing of ours was removed from it";
}

TEST_F(Workspace, what_the_user_has_a_hand_in_is_left_and_said_once) {
  write(root_, kFiles, kEverything);
  put(root_ / "tts/generated/main.cpp", "edited");
  const FileSet less{{"CMakeLists.txt", {"top", Owner::kPipegen}}};
  EXPECT_EQ(write(root_, less, kEverything).orphaned, (Paths{"tts/generated/main.cpp", "tts/src/handler.cpp"}));
  EXPECT_EQ(read(root_ / "tts/generated/main.cpp"), "edited");
  EXPECT_EQ(read(root_ / "tts/src/handler.cpp"), "// yours\n");
  EXPECT_TRUE(write(root_, less, kEverything).orphaned.empty());
}

TEST_F(Workspace, files_that_the_run_does_not_cover_stay) {
  write(root_, kFiles, kEverything);
  const FileSet other{{"ocr/CMakeLists.txt", {"ocr", Owner::kPipegen}}};
  const WriteReport report =
      write(root_, other, {.covers = [](const std::string& path) { return path.starts_with("ocr/"); }});
  EXPECT_TRUE(report.removed.empty() && report.orphaned.empty());
  EXPECT_TRUE(fs::exists(root_ / "tts/CMakeLists.txt"));
}

TEST_F(Workspace, services_are_remembered_as_they_were_written) {
  EXPECT_TRUE(existing_services(root_, "demo").empty());
  const Services services{{"tts", {{"components", {"core", "nats"}}, {"section", "tts_service"}}}};
  write(root_, kFiles, kEverything, services);
  EXPECT_EQ(existing_services(root_, "demo"), services);
}

TEST_F(Workspace, services_of_another_pipeline_are_not_mixed_with_ours) {
  write(root_, kFiles, kEverything, {{"tts", {}}});
  try {
    existing_services(root_, "other");
    FAIL() << "it gave them";
  } catch (const WorkspaceError& error) {
    EXPECT_NE(std::string(error.what()).find("services of pipeline 'demo', and this is 'other'"), std::string::npos)
        << error.what();
  }
}

TEST_F(Workspace, what_a_file_of_the_users_lacks_is_said_when_the_schema_changed) {
  const auto with_settings = [](const std::string& text) {
    FileSet files = kFiles;
    files["project.toml"] = {text, Owner::kShared};
    return files;
  };
  const std::string first = "# Settings\n[nats]\nurl = \"a\"\n\n[tts_service]\nsize = 2\n";
  write(root_, with_settings(first), kEverything);
  const std::string mine = "[nats]\nurl = \"mine\"\n\n[tts_service]\nsize = 2\n";
  put(root_ / "project.toml", mine);
  EXPECT_TRUE(write(root_, with_settings(first), kEverything).outdated.empty());
  const std::string second = "# Settings\n[nats]\nurl = \"a\"\n\n[tts_service]\nsize = 4\n";
  const WriteReport report = write(root_, with_settings(second), kEverything);
  EXPECT_EQ(report.outdated,
            (std::map<std::string, Paths>{{"project.toml", {"[nats] url = \"a\"", "[tts_service] size = 4"}}}));
  EXPECT_EQ(read(root_ / "project.toml"), mine);
  EXPECT_TRUE(write(root_, with_settings(second), kEverything).outdated.empty()) << "said once";
}

TEST_F(Workspace, links_that_lead_out_of_it_are_refused) {
  fs::create_directories(folder_ / "outside");
  fs::create_directories(root_);
  fs::create_directory_symlink(folder_ / "outside", root_ / "tts");
  EXPECT_NE(error_of(kFiles).find("leads out of the workspace"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(folder_ / "outside"));

  fs::remove(root_ / "tts");
  put(folder_ / "outside/file", "top");
  fs::create_symlink(folder_ / "outside/file", root_ / "CMakeLists.txt");
  EXPECT_NE(error_of(kFiles, kForce).find("leads out of the workspace"), std::string::npos);

  fs::remove(root_ / "CMakeLists.txt");
  fs::create_directories(root_ / "elsewhere");
  fs::create_directory_symlink("elsewhere", root_ / "tts");
  EXPECT_EQ(write(root_, kFiles, kEverything).created.size(), 5U) << "links inside are fine";
  EXPECT_EQ(read(root_ / "elsewhere/CMakeLists.txt"), "service");
}

TEST_F(Workspace, paths_that_lead_out_of_it_are_refused) {
  for (const char* path : {"../x", "/x", "a/../x", "a//x", ".pipegen/x", "", "a/", "./a"}) {
    EXPECT_NE(error_of({{path, {"x", Owner::kPipegen}}}).find("is no path inside"), std::string::npos) << path;
  }
  put(root_ / ".pipegen/staging/0", "evil");
  put(root_ / ".pipegen/journal", R"({"pipegen":1,"moves":[["0","../evil",""]],"removals":[]})");
  EXPECT_NE(error_of(kFiles).find("is no path inside"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder_ / "evil"));
}

TEST_F(Workspace, a_journal_moves_nothing_but_staged_files) {
  put(folder_ / "outside/file", "mine");
  const std::string absolute = (folder_ / "outside/file").string();
  for (const std::string& staged : {absolute, std::string("../../../outside/file"), std::string()}) {
    put(root_ / ".pipegen/journal",
        nlohmann::json{{"pipegen", 1}, {"moves", {{staged, "stolen", ""}}}, {"removals", nlohmann::json::array()}}
            .dump());
    EXPECT_NE(error_of(kFiles).find("is damaged"), std::string::npos) << staged;
    EXPECT_EQ(read(folder_ / "outside/file"), "mine") << staged;
    EXPECT_FALSE(fs::exists(root_ / "stolen")) << staged;
  }
}

TEST_F(Workspace, a_link_in_place_of_the_staging_folder_costs_nothing_that_it_leads_to) {
  put(folder_ / "outside/0", "mine");
  fs::create_directories(root_ / ".pipegen");
  fs::create_directory_symlink(folder_ / "outside", root_ / ".pipegen/staging");
  EXPECT_NE(error_of(kFiles).find("staging is in the way"), std::string::npos);
  put(root_ / ".pipegen/journal", R"({"pipegen":1,"moves":[["0","stolen",""]],"removals":[]})");
  EXPECT_NE(error_of(kFiles).find("staging is in the way"), std::string::npos);
  EXPECT_EQ(snapshot(folder_ / "outside"), (Snapshot{{"0", "mine"}}));
}

TEST_F(Workspace, files_and_folders_in_the_way_are_named) {
  put(root_ / "tts", "a file");
  EXPECT_NE(error_of(kFiles).find("needs a folder of that name"), std::string::npos);
  fs::remove(root_ / "tts");
  fs::create_directories(root_ / "CMakeLists.txt");
  EXPECT_NE(error_of(kFiles).find("needs a file of that name"), std::string::npos);
  fs::remove_all(root_);
  put(root_, "a file");
  EXPECT_NE(error_of(kFiles).find("is not a folder"), std::string::npos);
}

TEST_F(Workspace, the_root_of_the_file_system_is_none) {
  for (const char* root : {"/", "/.", "/tmp/../"}) EXPECT_THROW(Lock{root}, WorkspaceError) << root;
}

TEST_F(Workspace, a_damaged_or_foreign_manifest_is_refused_with_advice) {
  put(root_ / ".pipegen/manifest.json", "<<<<<<< HEAD\n");
  EXPECT_NE(error_of(kFiles).find("is damaged"), std::string::npos);
  put(root_ / ".pipegen/manifest.json", R"({"pipegen": 2, "files": {}})");
  EXPECT_NE(error_of(kFiles).find("of another pipegen"), std::string::npos);
}

TEST_F(Workspace, a_second_run_waits_and_then_says_who_holds_the_first) {
  const Lock first(root_);
  try {
    const Lock second(root_, std::chrono::milliseconds(30));
    FAIL() << "both runs hold the workspace";
  } catch (const WorkspaceError& error) {
    EXPECT_NE(std::string(error.what()).find("process " + std::to_string(::getpid())), std::string::npos)
        << error.what();
  }
}

TEST_F(Workspace, runs_at_the_same_time_do_not_lose_each_others_files) {
  constexpr int kRuns = 8;
  std::vector<pid_t> children;
  for (int run = 0; run < kRuns; ++run) {
    const pid_t child = ::fork();
    if (child == 0) {
      int status = 1;
      try {
        const std::string service = "s" + std::to_string(run);
        for (int round = 0; round < 5; ++round) {
          const Lock lock(root_);
          Services services = existing_services(root_, "demo");
          services[service] = {};
          std::string text;
          for (const auto& [name, entry] : services) text += name + "\n";
          write(lock,
                {{"CMakeLists.txt", {text, Owner::kPipegen}}, {service + "/CMakeLists.txt", {"x", Owner::kPipegen}}},
                {}, services);
        }
        status = 0;
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
      }
      ::_exit(status);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(read(root_ / "CMakeLists.txt"), "s0\ns1\ns2\ns3\ns4\ns5\ns6\ns7\n");
  EXPECT_EQ(existing_services(root_, "demo").size(), static_cast<std::size_t>(kRuns));
  EXPECT_FALSE(fs::exists(root_ / ".pipegen/lock"));
}

// ---- interrupted and failing writes
// ----------------------------------------------------------------------------------------

int steps_left = 0;
int failure = 0;

/// The step after `count` others, and all that follow, do not happen: the process ends.
void die_after(int count) {
  steps_left = count;
  disk::before_step = [] {
    if (steps_left-- == 0) ::_exit(42);
    return 0;
  };
}

/// The step after `count` others fails with `error`, and so do all that follow when `for_good`.
void fail_after(int count, int error, bool for_good) {
  steps_left = count;
  failure = error;
  disk::before_step =
      for_good ? [] { return steps_left-- <= 0 ? failure : 0; } : [] { return steps_left-- == 0 ? failure : 0; };
}

template <typename Work>
int in_child(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      work();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Creates, updates, removes (with folders), keeps and orphans.
FileSet changed_files() {
  FileSet files = kFiles;
  files["CMakeLists.txt"].content = "top 2";
  files["project.toml"].content = "settings 2";
  files.erase("tts/generated/main.cpp");
  files["ocr/generated/deep/er/main.cpp"].content = "new";
  files["ocr/src/handler.cpp"] = {"// yours\n", Owner::kUser};
  return files;
}

TEST_F(Workspace, a_kill_at_any_step_leaves_the_old_or_the_new_workspace) {
  for (const bool fresh : {true, false}) {
    const auto reset = [&] {
      fs::remove_all(root_);
      if (!fresh) write(root_, kFiles, kEverything);
    };
    reset();
    const Snapshot old_state = snapshot(root_);
    write(root_, changed_files(), kEverything);
    const Snapshot new_state = snapshot(root_);
    ASSERT_NE(old_state, new_state);

    int old_count = 0;
    int new_count = 0;
    int step = 0;
    for (;; ++step) {
      reset();
      const int ended = in_child([&] {
        die_after(step);
        write(root_, changed_files(), kEverything);
      });
      if (ended == 0) break;
      ASSERT_EQ(ended, 42) << "step " << step;
      const Snapshot crashed = snapshot(root_);

      // Recovery is killed at each of its steps, too.
      for (int recovery_step = 0;; ++recovery_step) {
        const int recovery = in_child([&] {
          die_after(recovery_step);
          const Lock lock(root_);
        });
        if (recovery == 0) break;
        ASSERT_EQ(recovery, 42) << "step " << step << ", then " << recovery_step;
      }
      const Snapshot after = snapshot(root_);
      ASSERT_TRUE(after == old_state || after == new_state) << "step " << step;
      (after == new_state ? new_count : old_count)++;
      ASSERT_FALSE(after == old_state && new_count > 0) << "the commit point was passed before step " << step;

      const WriteReport report = write(root_, changed_files(), kEverything);
      ASSERT_EQ(snapshot(root_), new_state) << "step " << step;
      ASSERT_EQ(report.created.empty() && report.updated.empty(), after == new_state) << "step " << step;
    }
    EXPECT_GT(old_count, 10);
    EXPECT_GT(new_count, 10);
    EXPECT_EQ(snapshot(root_), new_state);
  }
}

TEST_F(Workspace, a_full_disk_at_any_step_leaves_the_old_workspace_or_one_that_the_next_run_finishes) {
  write(root_, kFiles, kEverything);
  const Snapshot old_state = snapshot(root_);
  write(root_, changed_files(), kEverything);
  const Snapshot new_state = snapshot(root_);
  for (const bool for_good : {false, true}) {
    int failed_early = 0;
    int failed_late = 0;
    for (int step = 0;; ++step) {
      disk::before_step = nullptr;
      fs::remove_all(root_);
      write(root_, kFiles, kEverything);
      fail_after(step, ENOSPC, for_good);
      const std::string error = error_of(changed_files());
      disk::before_step = nullptr;
      if (error == "no error") break;
      ASSERT_NE(error.find("No space left on device"), std::string::npos) << error;
      const bool early = error.find("Nothing was written") != std::string::npos;
      ASSERT_NE(early, error.find("the next run of pipegen finishes it") != std::string::npos) << error;
      (early ? failed_early : failed_late)++;
      if (!early || for_good) const Lock lock(root_);
      ASSERT_EQ(snapshot(root_), early ? old_state : new_state) << "step " << step;
    }
    EXPECT_GT(failed_early, 5);
    EXPECT_GT(failed_late, 5);
  }
}

TEST_F(Workspace, an_edit_between_an_interrupted_run_and_the_next_is_not_lost) {
  for (int step = 0;; ++step) {
    fs::remove_all(root_);
    write(root_, kFiles, kEverything);
    const int ended = in_child([&] {
      die_after(step);
      write(root_, changed_files(), kEverything);
    });
    if (ended == 0) break;
    put(root_ / "ocr/src/handler.cpp", "my work");
    put(root_ / "CMakeLists.txt", "my edit");
    put(root_ / "tts/generated/main.cpp", "my edit");
    const std::string error = error_of(changed_files());
    EXPECT_NE(error.find("were edited by hand:\n  " + (root_ / "CMakeLists.txt").string()), std::string::npos) << error;
    EXPECT_EQ(read(root_ / "ocr/src/handler.cpp"), "my work");
    EXPECT_EQ(read(root_ / "CMakeLists.txt"), "my edit");
    EXPECT_EQ(read(root_ / "tts/generated/main.cpp"), "my edit");
  }
}

TEST_F(Workspace, a_failed_first_write_leaves_no_folder_behind) {
  EXPECT_NE(error_of({{"../x", {"x", Owner::kPipegen}}}), "no error");
  EXPECT_FALSE(fs::exists(root_));
}

}  // namespace
}  // namespace pipegen::gen
