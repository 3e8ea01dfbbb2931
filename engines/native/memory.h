// Buffers of numbers.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

namespace native {

// An array of floats or ints that starts at 0 and lies on cache lines.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::size_t count)
        : data_(new (ALIGNMENT) T[count]()), count_(count) {}
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
        return *this;
    }
    ~Buffer() { ::operator delete[](data_, ALIGNMENT); }

    void resize(std::size_t count) { *this = Buffer(count); }  // forgets what was in it
    T* get() const { return data_; }
    std::size_t size() const { return count_; }
    T& operator[](std::size_t i) const { return data_[i]; }

  private:
    static constexpr std::align_val_t ALIGNMENT{64};

    T* data_ = nullptr;
    std::size_t count_ = 0;
};

}  // namespace native
