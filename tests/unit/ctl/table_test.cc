// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/table.h>

#include <gtest/gtest.h>

namespace srpfs::ctl {
namespace {

Table people() {
    Table table({{"NAME", Column::Align::left, 4, Cut::end},
                 {"AGE", Column::Align::right},
                 {"TOWN", Column::Align::left, 3, Cut::middle, 1},
                 {"NOTE", Column::Align::left, 0, Cut::end, 2}});
    table.add({{"Ada Lovelace"}, {"36"}, {"London"}, {"first"}});
    table.add({{"Bob"}, {"101"}, {""}, {""}});
    return table;
}

TEST(Table, HasTwoBlanksBetweenColumnsAndNoneAtTheEnd) {
    EXPECT_EQ(people().text({}),
              "NAME          AGE  TOWN    NOTE\n"
              "Ada Lovelace   36  London  first\n"
              "Bob           101\n");
}

TEST(Table, ShortensTheWidestColumnFirst) {
    EXPECT_EQ(people().text({.width = 28, .charset = Charset::utf8}),
              "NAME      AGE  TOWN    NOTE\n"
              "Ada Lov…   36  London  first\n"
              "Bob       101\n");
}

TEST(Table, LeavesColumnsOutWhenShorteningIsNotEnough) {
    EXPECT_EQ(people().text({.width = 20, .charset = Charset::ascii}),
              "NAME     AGE  TOWN\n"
              "Ada Lo~   36  London\n"
              "Bob      101\n");
    EXPECT_EQ(people().text({.width = 11, .charset = Charset::ascii}),
              "NAME    AGE\n"
              "Ada L~   36\n"
              "Bob     101\n");
}

TEST(Table, LeavesOutTogetherWhatBelongsTogether) {
    Table table(
        {{"NAME"}, {"FAST", Column::Align::right, 0, Cut::end, 1}, {"SLOW", Column::Align::right, 0, Cut::end, 1}});
    table.add({{"a"}, {"1"}, {"2"}});
    EXPECT_EQ(table.text({.width = 16}), "NAME  FAST  SLOW\na        1     2\n");
    EXPECT_EQ(table.text({.width = 15}), "NAME\na\n");
}

TEST(Table, NamesThatDifferAreNotShortenedToTheSame) {
    Table table({{"NAME", Column::Align::left, 5, Cut::middle}, {"N", Column::Align::left, 0, Cut::end, 1}});
    for (const char* name : {"1111-2222-3333", "1111-2222-4444", "9111-2222-3333"}) table.add({{name}, {"x"}});
    EXPECT_EQ(table.text({.width = 10}), "NAME     N\n111~333  x\n111~444  x\n911~333  x\n");
    Table inside({{"NAME", Column::Align::left, 5, Cut::middle}, {"N", Column::Align::left, 0, Cut::end, 1}});
    for (const char* name : {"1111-2222-3333", "1111-9222-3333"}) inside.add({{name}, {"x"}});
    EXPECT_EQ(inside.text({.width = 10}), "NAME     N\n1111-2~  x\n1111-9~  x\n") << "the ellipsis is elsewhere";
    Table deep({{"NAME", Column::Align::left, 5, Cut::middle}, {"NUMBER", Column::Align::left, 0, Cut::end, 1}});
    for (const char* name : {"1111-2222-3333", "1111-2922-3333"}) deep.add({{name}, {"x"}});
    EXPECT_EQ(deep.text({.width = 15}), "NAME\n1111-2222-3333\n1111-2922-3333\n") << "a column gives way";
    Table narrow({{"NAME", Column::Align::left, 5, Cut::middle}, {"NUMBER"}});
    for (const char* name : {"1111-2222-3333", "1111-2922-3333"}) narrow.add({{name}, {"x"}});
    EXPECT_EQ(narrow.text({.width = 13}), "NAME   NUMBER\n11~33  x\n11~33  x\n") << "nothing helps";
}

TEST(Table, IsNeverWiderThanTheScreenAsLongAsItCanHelpIt) {
    for (std::size_t width = 9; width < 40; ++width) {
        const std::string text = people().text({.width = width});
        for (const std::string_view line : split(text, '\n')) EXPECT_LE(columns_of(line), width) << text;
    }
}

TEST(Table, ColoursDoNotCountAsColumns) {
    Table table({{"STATE"}, {"N"}});
    table.add({{"lost", Paint::bad}, {"1"}});
    EXPECT_EQ(table.text({.has_colour = true}), "\x1b[2mSTATE\x1b[0m  \x1b[2mN\x1b[0m\n\x1b[31mlost\x1b[0m   1\n");
    EXPECT_EQ(table.text({}), "STATE  N\nlost   1\n");
}

TEST(Table, ContentCannotObeyTheTerminal) {
    Table table({{"A"}});
    table.add({{"x\x1b[2Jy"}});
    EXPECT_EQ(table.text({}), "A\nx?[2Jy\n");
}

}  // namespace
}  // namespace srpfs::ctl
