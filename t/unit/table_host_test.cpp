// Promise: what a host shares beside accounts - catalog, place in the change stream, watermark, lease, counters - is
// whole whenever it is read; a zone of another layout or too small a size is refused with words that help.
#include "table_zone.hpp"

#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>

namespace billing {
namespace {

TEST(TableZone, IsRefusedWhenTooSmallAndTheErrorNamesASizeThatIsEnough) {
    SharedMemory memory(512 * 1024);
    TestLock lock;
    const Result<Table> table = Table::create(memory.at(), memory.bytes(), lock);
    ASSERT_FALSE(table.ok());
    const std::size_t at = table.error().find("at least ");
    ASSERT_NE(at, std::string::npos) << table.error();
    const std::size_t enough = std::stoul(table.error().substr(at + 9)) * 1024;
    EXPECT_LE(enough, 1024u * 1024);
    SharedMemory larger(enough);
    EXPECT_TRUE(Table::create(larger.at(), larger.bytes(), lock).ok());
}

TEST(TableZone, IsTakenOverAsItIsAtAnotherAddress) {
    TestZone zone;
    zone.put(1, 7);
    void* other = mremap(zone.memory.at(), 0, zone.memory.bytes(), MREMAP_MAYMOVE); // a second mapping of it
    ASSERT_NE(other, MAP_FAILED);
    ASSERT_NE(other, zone.memory.at());
    Result<Table> attached = Table::attach(other, zone.memory.bytes(), zone.lock);
    ASSERT_TRUE(attached.ok()) << attached.error();
    Table& table = attached.value();
    AccountView view{};
    ASSERT_TRUE(table.find(table.key_of("account-1"), view));
    EXPECT_EQ(view.stamp, 7u);
    ASSERT_TRUE(table.fund(table.key_of("account-1"), 0, 0, 5, 0, 0));
    EXPECT_EQ(zone.spend(1, 0, 0, 5), Spend::taken);
    EXPECT_TRUE(std::ranges::equal(table.instance_id(), zone.table.instance_id()));
    munmap(other, zone.memory.bytes());
}

TEST(TableZone, OfAnotherLayoutIsRefused) {
    TestZone zone;
    auto& header = *static_cast<ZoneHeader*>(zone.memory.at());
    header.layout++;
    EXPECT_FALSE(Table::attach(zone.memory.at(), zone.memory.bytes(), zone.lock).ok());
    header.layout--;
    EXPECT_TRUE(Table::attach(zone.memory.at(), zone.memory.bytes(), zone.lock).ok());
    EXPECT_FALSE(Table::attach(zone.memory.at(), zone.memory.bytes() - 4096, zone.lock).ok());
    header.magic = 0;
    EXPECT_FALSE(Table::attach(zone.memory.at(), zone.memory.bytes(), zone.lock).ok());
}

TEST(TableZone, IsBornWithAnIdentityAndAHashKeyOfItsOwn) {
    TestZone one;
    TestZone other;
    EXPECT_FALSE(std::ranges::equal(one.table.instance_id(), other.table.instance_id()));
    EXPECT_NE(one.key(1).hi, other.key(1).hi);
    EXPECT_EQ(one.table.instance_id()[6] >> 4, 4) << "a uuid of version 4";
}

TEST(TableCatalog, IsReplacedByAGreaterStampOnly) {
    TestZone zone;
    std::string document;
    std::uint64_t stamp = 0;
    EXPECT_FALSE(zone.table.read_catalog(document, stamp));
    EXPECT_EQ(zone.table.catalog_stamp(), 0u);
    EXPECT_TRUE(zone.table.put_catalog(5, "five"));
    EXPECT_FALSE(zone.table.put_catalog(5, "again"));
    EXPECT_FALSE(zone.table.put_catalog(4, "four"));
    EXPECT_FALSE(zone.table.put_catalog(6, std::string(k_catalog_bytes + 1, 'x')));
    EXPECT_TRUE(zone.table.read_catalog(document, stamp));
    EXPECT_EQ(document, "five");
    EXPECT_EQ(stamp, 5u);
    EXPECT_TRUE(zone.table.put_catalog(7, std::string(k_catalog_bytes, 'y')));
    EXPECT_TRUE(zone.table.read_catalog(document, stamp));
    EXPECT_EQ(document, std::string(k_catalog_bytes, 'y'));
    EXPECT_EQ(zone.table.catalog_stamp(), 7u);
}

TEST(TableCatalog, IsReadWholeWhileItIsWrittenAndItsWriterKilled) {
    TestZone zone;
    const auto text = [](std::uint64_t stamp) {
        return std::string(1000 + stamp % 5000, static_cast<char>('a' + stamp % 26));
    };
    zone.table.put_catalog(1, text(1));
    std::uint64_t last = 1;
    for (int round = 0; round < 30; round++) {
        const pid_t writer = in_child([&] {
            for (std::uint64_t stamp = last + 1;; stamp++) {
                zone.table.put_catalog(stamp, text(stamp));
            }
        });
        const std::uint64_t begin = last;
        int reads = 0;
        while (last < begin + 20 || reads < 20) {
            std::string document;
            std::uint64_t stamp = 0;
            if (!zone.table.read_catalog(document, stamp)) {
                continue; // overtaken again and again
            }
            reads++;
            ASSERT_EQ(document, text(stamp));
            ASSERT_GE(stamp, last);
            last = stamp;
        }
        kill(writer, SIGKILL);
        EXPECT_TRUE(WIFSIGNALED(await(writer)));
        zone.lock.force_unlock(writer);
        last = zone.table.catalog_stamp();
    }
}

TEST(TablePosition, IsKeptAsWritten) {
    TestZone zone;
    EXPECT_EQ(zone.table.position(), "");
    EXPECT_TRUE(zone.table.put_position("1763700000000-12"));
    EXPECT_EQ(zone.table.position(), "1763700000000-12");
    EXPECT_TRUE(zone.table.put_position(std::string(k_position_bytes, '9')));
    EXPECT_EQ(zone.table.position(), std::string(k_position_bytes, '9'));
    EXPECT_FALSE(zone.table.put_position(std::string(k_position_bytes + 1, '9')));
}

TEST(TableWatermark, IsKeptWithItsArrival) {
    TestZone zone;
    zone.table.put_watermark(1763700000000, 5000);
    EXPECT_EQ(zone.table.watermark(), 1763700000000u);
    EXPECT_EQ(zone.table.watermark_arrival(), 5000u);
}

TEST(TableLease, HasOneHolderUntilItsTimeIsUp) {
    TestZone zone;
    const auto self = static_cast<std::uint32_t>(getpid());
    const auto other = static_cast<std::uint32_t>(getppid());
    EXPECT_TRUE(zone.table.hold_lease(self, 1000, 3000));
    EXPECT_FALSE(zone.table.hold_lease(other, 3999, 3000));
    EXPECT_TRUE(zone.table.hold_lease(self, 3000, 3000)) << "prolonged";
    EXPECT_FALSE(zone.table.hold_lease(other, 5999, 3000));
    EXPECT_TRUE(zone.table.hold_lease(other, 6000, 3000));
    EXPECT_FALSE(zone.table.hold_lease(self, 6001, 3000));
    zone.table.release_lease(self);
    EXPECT_FALSE(zone.table.hold_lease(self, 6001, 3000)) << "released by who does not hold it";
    zone.table.release_lease(other);
    EXPECT_TRUE(zone.table.hold_lease(self, 6001, 3000));
}

TEST(TableLease, OfADeadProcessIsTakenOverAtOnce) {
    TestZone zone;
    const pid_t holder = in_child([&] { zone.table.hold_lease(static_cast<std::uint32_t>(getpid()), 1000, 1000000); });
    EXPECT_TRUE(ended_well(await(holder)));
    EXPECT_TRUE(zone.table.hold_lease(static_cast<std::uint32_t>(getpid()), 1001, 3000));
}

TEST(TableLease, GoesToOneOfManyThatWantIt) {
    TestZone zone;
    Shared<std::uint32_t[2]> votes; // begun; won
    pid_t children[4];
    for (pid_t& child : children) {
        child = in_child([&] {
            std::atomic_ref((*votes)[0]).fetch_add(1);
            while (shared::load((*votes)[0]) < 4) {
                sched_yield();
            }
            shared::add((*votes)[1], zone.table.hold_lease(static_cast<std::uint32_t>(getpid()), 1000, 3000));
            std::atomic_ref((*votes)[0]).fetch_add(1);
            while (shared::load((*votes)[0]) < 8) { // alive until all have tried
                sched_yield();
            }
        });
    }
    for (const pid_t child : children) {
        EXPECT_TRUE(ended_well(await(child)));
    }
    EXPECT_EQ((*votes)[1], 1u);
}

TEST(TableCounters, AreSummedOverWorkers) {
    TestZone zone;
    for (std::uint32_t worker = 0; worker < 20; worker++) {
        zone.table.as_worker(worker);
        zone.table.count(Counter::allowed, worker);
    }
    EXPECT_EQ(zone.table.counted(Counter::allowed), 190u);
    EXPECT_EQ(zone.table.counted(Counter::denied_plan), 0u);
}

} // namespace
} // namespace billing
