// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/intrusive_list.h>

#include <gtest/gtest.h>

#include <vector>

namespace srpfs {
namespace {

struct WaitingTag {};
struct DirtyTag {};

struct Element : ListHook<WaitingTag>, ListHook<DirtyTag> {
    explicit Element(int name_) : name(name_) {}
    int name;
};
using Waiting = IntrusiveList<Element, WaitingTag>;
using Dirty = IntrusiveList<Element, DirtyTag>;

std::vector<int> names(Waiting& list) {
    std::vector<int> result;
    list.for_each([&](Element& element) { result.push_back(element.name); });
    return result;
}

void empty_out(Waiting& list) {
    while (list.pop_front()) {
    }
}

TEST(IntrusiveList, KeepsTheOrderOfBothEnds) {
    Element one(1), two(2), three(3);
    Waiting list;

    list.push_back(two);
    list.push_back(three);
    list.push_front(one);

    EXPECT_EQ(names(list), (std::vector{1, 2, 3}));
    EXPECT_EQ(list.size(), 3u);
    empty_out(list);
}

TEST(IntrusiveList, RemovesFromTheMiddleAndFromBothEnds) {
    Element one(1), two(2), three(3);
    Waiting list;
    for (Element* element : {&one, &two, &three}) list.push_back(*element);

    list.remove(two);
    EXPECT_EQ(names(list), (std::vector{1, 3}));
    list.remove(one);
    EXPECT_EQ(names(list), std::vector{3});
    list.remove(three);
    EXPECT_TRUE(list.empty());
    EXPECT_EQ(list.size(), 0u);
}

TEST(IntrusiveList, PopsInOrderAndThenNothing) {
    Element one(1), two(2);
    Waiting list;
    list.push_back(one);
    list.push_back(two);

    EXPECT_EQ(list.pop_front(), &one);
    EXPECT_EQ(list.front(), &two);
    EXPECT_EQ(list.pop_front(), &two);
    EXPECT_EQ(list.pop_front(), nullptr);
    EXPECT_EQ(list.front(), nullptr);
}

TEST(IntrusiveList, LetsTheVisitorRemoveTheElementItIsGiven) {
    Element one(1), two(2), three(3);
    Waiting list;
    for (Element* element : {&one, &two, &three}) list.push_back(*element);

    list.for_each([&](Element& element) {
        if (element.name != 2) list.remove(element);
    });

    EXPECT_EQ(names(list), std::vector{2});
    empty_out(list);
}

TEST(IntrusiveList, FindsTheFirstThatMatches) {
    Element one(1), two(2), other_two(2);
    Waiting list;
    for (Element* element : {&one, &two, &other_two}) list.push_back(*element);

    EXPECT_EQ(list.find([](Element& element) { return element.name == 2; }), &two);
    EXPECT_EQ(list.find([](Element& element) { return element.name == 3; }), nullptr);
    empty_out(list);
}

TEST(IntrusiveList, HoldsAnElementOfAnotherListAtTheSameTime) {
    Element one(1);
    Waiting waiting;
    Dirty dirty;

    waiting.push_back(one);
    dirty.push_back(one);
    waiting.remove(one);

    EXPECT_FALSE(one.ListHook<WaitingTag>::is_linked());
    EXPECT_TRUE(one.ListHook<DirtyTag>::is_linked());
    EXPECT_EQ(dirty.pop_front(), &one);
}

TEST(IntrusiveList, TakesAnElementAgainAfterItsRemoval) {
    Element one(1);
    Waiting list;
    list.push_back(one);
    list.remove(one);

    list.push_back(one);

    EXPECT_EQ(list.size(), 1u);
    empty_out(list);
}

TEST(IntrusiveListDeathTest, AbortsWhenAnElementIsInsertedTwice) {
    EXPECT_DEATH(
        {
            Element one(1);
            Waiting list;
            list.push_back(one);
            list.push_back(one);
        },
        "is_linked");
}

TEST(IntrusiveListDeathTest, AbortsWhenAnElementThatIsInNoListIsRemoved) {
    EXPECT_DEATH(
        {
            Element one(1);
            Waiting list;
            list.remove(one);
        },
        "is_linked");
}

TEST(IntrusiveListDeathTest, AbortsWhenALinkedElementIsDestroyed) {
    EXPECT_DEATH(
        {
            Waiting list;
            Element one(1);
            list.push_back(one);
        },
        "is_linked");
}

}  // namespace
}  // namespace srpfs
