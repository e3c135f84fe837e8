#include "media/png.hpp"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

namespace pipegen::actions {

namespace {

constexpr int kCompression = 3;
constexpr unsigned char kFilterUp = 2;  // each octet is stored as its difference to the one above

void append_number(Bytes& out, std::size_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::byte>(value >> shift & 0xff));
}

void append_chunk(Bytes& out, std::string_view name, BytesView data) {
  append_number(out, data.size());
  const std::size_t start = out.size();
  for (const char c : name) out.push_back(static_cast<std::byte>(c));
  out.insert(out.end(), data.begin(), data.end());
  append_number(out, crc32_z(0, reinterpret_cast<const Bytef*>(out.data() + start), out.size() - start));
}

/// Compresses row after row, so that there is no second picture in memory.
class Deflater {
 public:
  Deflater() {
    if (deflateInit(&stream_, kCompression) != Z_OK) throw std::bad_alloc();
  }
  ~Deflater() { deflateEnd(&stream_); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  void add(const std::vector<unsigned char>& data, bool last) {
    stream_.next_in = const_cast<Bytef*>(data.data());
    stream_.avail_in = static_cast<uInt>(data.size());
    do {
      if (used_ == out_.size()) out_.resize(std::max<std::size_t>(64 * 1024, out_.size() * 2));
      stream_.next_out = reinterpret_cast<Bytef*>(out_.data() + used_);
      stream_.avail_out = static_cast<uInt>(std::min<std::size_t>(out_.size() - used_, 1u << 30));
      const uInt room = stream_.avail_out;
      deflate(&stream_, last ? Z_FINISH : Z_NO_FLUSH);
      used_ += room - stream_.avail_out;
    } while (stream_.avail_out == 0);
  }
  BytesView result() const { return BytesView(out_).first(used_); }

 private:
  z_stream stream_{};
  Bytes out_;
  std::size_t used_ = 0;
};

/// Whether all octets from `step` on equal those `step` before them.
bool repeats(const std::byte* data, std::size_t size, std::size_t step) {
  return size <= step || std::memcmp(data, data + step, size - step) == 0;
}

bool is_grey(const std::byte* row, std::size_t width) {
  for (std::size_t x = 0; x < width; ++x, row += 3) {
    if (row[0] != row[1] || row[1] != row[2]) return false;
  }
  return true;
}

}  // namespace

EncodedPicture encode_png(const Picture& picture, double dpi) {
  EncodedPicture result;
  bool grey = true;
  result.one_colour = true;
  for (std::size_t y = 0; y < picture.height; ++y) {
    const std::byte* row = picture.pixels + y * picture.stride;
    grey = grey && is_grey(row, picture.width);
    result.one_colour =
        result.one_colour && repeats(row, picture.width * 3, 3) && std::memcmp(row, picture.pixels, 3) == 0;
    if (!grey && !result.one_colour) break;
  }

  const std::size_t depth = grey ? 1 : 3;
  const std::size_t length = picture.width * depth;
  std::vector<unsigned char> above(length), row(length), filtered(length + 1);
  Deflater pixels;
  for (std::size_t y = 0; y < picture.height; ++y) {
    const std::byte* source = picture.pixels + y * picture.stride;
    if (grey) {
      for (std::size_t x = 0; x < length; ++x) row[x] = std::to_integer<unsigned char>(source[3 * x]);
    } else {
      std::memcpy(row.data(), source, length);
    }
    filtered[0] = kFilterUp;
    for (std::size_t x = 0; x < length; ++x) filtered[x + 1] = static_cast<unsigned char>(row[x] - above[x]);
    pixels.add(filtered, y + 1 == picture.height);
    above.swap(row);
  }

  Bytes& png = result.png;
  png.reserve(pixels.result().size() + 128);
  const BytesView signature = bytes_of("\x89PNG\r\n\x1a\n");
  png.insert(png.end(), signature.begin(), signature.end());
  Bytes header;
  append_number(header, picture.width);
  append_number(header, picture.height);
  for (const int octet : {8, grey ? 0 : 2, 0, 0, 0}) header.push_back(static_cast<std::byte>(octet));
  append_chunk(png, "IHDR", header);
  Bytes size;  // pixels a metre
  const auto density = static_cast<std::size_t>(std::lround(dpi / 0.0254));
  append_number(size, density);
  append_number(size, density);
  size.push_back(std::byte{1});
  append_chunk(png, "pHYs", size);
  append_chunk(png, "IDAT", pixels.result());
  append_chunk(png, "IEND", {});
  return result;
}

}  // namespace pipegen::actions
