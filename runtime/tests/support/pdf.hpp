// PDFs for tests, good and bad, made here: every octet of them is known.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace pipegen::testing {

namespace pdf {

inline std::string digits(std::size_t number, std::size_t width) {
  std::string text = std::to_string(number);
  text.insert(0, width - std::min(width, text.size()), '0');
  return text;
}

/// Appends objects and remembers where they are.
struct File {
  explicit File(std::size_t objects) : offsets(objects + 1) {}
  void object(std::size_t number, const std::string& content) {
    offsets[number] = text.size();
    text += std::to_string(number) + " 0 obj\n" + content + "\nendobj\n";
  }

  std::string text = "%PDF-1.4\n";
  std::vector<std::size_t> offsets;  // by number
};

/// The cross-reference table of the objects from `first` to `last`.
inline std::string table(const std::vector<std::size_t>& offsets, std::size_t first, std::size_t last) {
  std::string text = "xref\n" + std::to_string(first) + " " + std::to_string(last - first + 1) + "\n";
  for (std::size_t i = first; i <= last; ++i) {
    text += i == 0 ? "0000000000 65535 f \n" : digits(offsets[i], 10) + " 00000 n \n";
  }
  return text;
}

}  // namespace pdf

/// A PDF of one object after the other, with a cross-reference table that is right. The first object is the catalogue.
inline std::string pdf_of(const std::vector<std::string>& objects, const std::string& trailer = "") {
  pdf::File file(objects.size());
  for (std::size_t i = 0; i < objects.size(); ++i) file.object(i + 1, objects[i]);
  const std::size_t table = file.text.size();
  return file.text + pdf::table(file.offsets, 0, objects.size()) + "trailer\n<< /Size " +
         std::to_string(objects.size() + 1) + " /Root 1 0 R " + trailer + ">>\nstartxref\n" + std::to_string(table) +
         "\n%%EOF\n";
}

inline std::string stream_of(const std::string& content, const std::string& entries = "") {
  return "<< /Length " + std::to_string(content.size()) + " " + entries + ">>\nstream\n" + content + "\nendstream";
}

/// A font that every PDF program has: "/F1" on a page with these resources.
inline const std::string kFont =
    "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Times-Roman /Encoding /WinAnsiEncoding >> >> >>";

/// What shows these lines of text, large enough for character recognition, from the top of a page of 595 x 842 points.
/// No parentheses or backslashes in them.
inline std::string lines_of_text(const std::vector<std::string>& lines) {
  std::string content = "BT /F1 16 Tf 72 740 Td 24 TL\n";
  for (const std::string& line : lines) content += "(" + line + ") Tj T*\n";
  return stream_of(content + "ET");
}

/// One page for each stream, of `width` x `height` points.
inline std::string pages_of(const std::vector<std::string>& streams, int width, int height,
                            const std::string& trailer = "") {
  std::string kids;
  std::vector<std::string> objects{"<< /Type /Catalog /Pages 2 0 R >>", ""};
  for (const std::string& stream : streams) {
    const std::size_t page = objects.size() + 1;
    kids += std::to_string(page) + " 0 R ";
    objects.push_back("<< /Type /Page /Parent 2 0 R /Contents " + std::to_string(page + 1) + " 0 R >>");
    objects.push_back(stream);
  }
  objects[1] = "<< /Type /Pages /Count " + std::to_string(streams.size()) + " /MediaBox [0 0 " + std::to_string(width) +
               " " + std::to_string(height) + "] /Resources " + kFont + " /Kids [" + kids + "] >>";
  return pdf_of(objects, trailer);
}
inline std::string pages_of(const std::vector<std::string>& streams, int size = 100, const std::string& trailer = "") {
  return pages_of(streams, size, size, trailer);
}

/// A PDF that nobody can open without its password.
inline std::string encrypted_pdf() {
  const std::string text(32, 'x');
  const std::string id = "<00112233445566778899aabbccddeeff>";
  return pages_of({stream_of("0 g 20 20 40 40 re f")}, 100,
                  "/ID [" + id + " " + id + "] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O (" + text + ") /U (" +
                      text + ") >> ");
}

/// Pages of 595 x 842 points in the order that lets a reader show the first one while the rest is still on its way (ISO
/// 32000, annex F): the first page and all that it needs come first, with a cross-reference table of their own, the
/// others and theirs behind. What is left of such a file when it is cut off still opens.
inline std::string linearized_pdf(const std::vector<std::string>& streams) {
  const std::size_t others = 2 * (streams.size() - 1);  // objects: each a page and its content
  const std::size_t parameters = others + 1, catalogue = others + 2, tree = others + 3, hints = others + 4,
                    first_page = others + 5, first_content = others + 6;
  const auto reference = [](std::size_t object) { return std::to_string(object) + " 0 R"; };
  const auto page_with = [&](std::size_t content) {
    return "<< /Type /Page /Parent " + reference(tree) + " /Contents " + reference(content) + " >>";
  };
  std::string kids = reference(first_page);
  for (std::size_t i = 1; i <= others; i += 2) kids += " " + reference(i);

  struct Places {
    std::vector<std::size_t> objects;
    std::size_t first_end = 0, main_table = 0, main_entries = 0, end = 0;
  };
  const auto write = [&](const Places& known, Places& found) {
    pdf::File file(first_content);
    const auto number = [](std::size_t value) { return pdf::digits(value, 10); };
    const std::size_t hints_size = known.objects[first_page] - known.objects[hints];
    file.object(parameters, "<< /Linearized 1 /L " + number(known.end) + " /H [" + number(known.objects[hints]) + " " +
                                number(hints_size) + "] /O " + std::to_string(first_page) + " /E " +
                                number(known.first_end) + " /N " + std::to_string(streams.size()) + " /T " +
                                number(known.main_entries) + " >>");
    const std::size_t first_table = file.text.size();
    file.text += pdf::table(known.objects, parameters, first_content) + "trailer\n<< /Size " +
                 std::to_string(first_content + 1) + " /Root " + reference(catalogue) + " /Prev " +
                 number(known.main_table) + " >>\nstartxref\n0\n%%EOF\n";
    file.object(catalogue, "<< /Type /Catalog /Pages " + reference(tree) + " >>");
    file.object(tree, "<< /Type /Pages /Count " + std::to_string(streams.size()) +
                          " /MediaBox [0 0 595 842] /Resources " + kFont + " /Kids [" + kids + "] >>");
    file.object(hints, stream_of(std::string(36, '\0'), "/S 36 "));  // none: nobody needs them
    file.object(first_page, page_with(first_content));
    file.object(first_content, streams.front());
    found.first_end = file.text.size();
    for (std::size_t i = 1; i < streams.size(); ++i) {
      file.object(2 * i - 1, page_with(2 * i));
      file.object(2 * i, streams[i]);
    }
    found.objects = file.offsets;
    found.main_table = file.text.size();
    file.text += pdf::table(file.offsets, 0, others);
    found.main_entries =
        file.text.find('\n', found.main_table + 5);  // behind "xref" and the line of its first and last
    file.text += "trailer\n<< /Size " + std::to_string(others + 1) + " >>\nstartxref\n" + std::to_string(first_table) +
                 "\n%%EOF\n";
    found.end = file.text.size();
    return file.text;
  };
  // Numbers take as much room whatever they are, so that what the first try finds out is true for the second.
  Places places{.objects = std::vector<std::size_t>(first_content + 1)}, same;
  write(places, places);
  return write(places, same);
}

}  // namespace pipegen::testing
