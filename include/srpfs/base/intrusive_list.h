// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A doubly linked list through hooks inside its elements: no allocation, removal in O(1) from anywhere.
// An element derives from ListHook<Tag> once for each list it can be in at the same time.

#pragma once

#include <srpfs/base/assert.h>

#include <cstddef>

namespace srpfs {

struct DefaultListTag {};

template <typename Tag = DefaultListTag>
class ListHook {
public:
    ListHook() = default;
    ListHook(const ListHook&) = delete;
    ListHook& operator=(const ListHook&) = delete;
    ~ListHook() { SRPFS_ASSERT(!is_linked()); }

    [[nodiscard]] bool is_linked() const { return next_ != nullptr; }

private:
    template <typename, typename>
    friend class IntrusiveList;
    ListHook* next_ = nullptr;
    ListHook* previous_ = nullptr;
};

template <typename T, typename Tag = DefaultListTag>
class IntrusiveList {
    using Hook = ListHook<Tag>;

public:
    IntrusiveList() { head_.next_ = head_.previous_ = &head_; }
    IntrusiveList(const IntrusiveList&) = delete;
    IntrusiveList& operator=(const IntrusiveList&) = delete;
    ~IntrusiveList() {
        SRPFS_ASSERT(empty());
        head_.next_ = head_.previous_ = nullptr;
    }

    [[nodiscard]] bool empty() const { return head_.next_ == &head_; }
    [[nodiscard]] std::size_t size() const { return size_; }

    void push_back(T& element) { insert_before(head_, element); }
    void push_front(T& element) { insert_before(*head_.next_, element); }
    // `element` must be in this list.
    void remove(T& element) {
        Hook& hook = element;
        SRPFS_ASSERT(hook.is_linked());
        hook.previous_->next_ = hook.next_;
        hook.next_->previous_ = hook.previous_;
        hook.next_ = hook.previous_ = nullptr;
        --size_;
    }
    [[nodiscard]] T* front() { return empty() ? nullptr : static_cast<T*>(head_.next_); }
    T* pop_front() {
        T* first = front();
        if (first) remove(*first);
        return first;
    }
    // Calls visit(T&) for each element; visit may remove the element it is given, and no other.
    template <typename Visit>
    void for_each(Visit&& visit) {
        for (Hook* hook = head_.next_; hook != &head_;) {
            Hook* next = hook->next_;
            visit(*static_cast<T*>(hook));
            hook = next;
        }
    }
    // The first element for which test(T&) is true, or nullptr.
    template <typename Test>
    T* find(Test&& test) {
        for (Hook* hook = head_.next_; hook != &head_; hook = hook->next_)
            if (test(*static_cast<T*>(hook))) return static_cast<T*>(hook);
        return nullptr;
    }

private:
    void insert_before(Hook& position, T& element) {
        Hook& hook = element;
        SRPFS_ASSERT(!hook.is_linked());
        hook.next_ = &position;
        hook.previous_ = position.previous_;
        position.previous_->next_ = &hook;
        position.previous_ = &hook;
        ++size_;
    }

    Hook head_;
    std::size_t size_ = 0;
};

}  // namespace srpfs
