// nginx's side of the shared memory: the zone `billing_zone` asks for, the lock over its slab pool, and the Table in
// it.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/conf.hpp"
#include "state/table.hpp"

#include <cstddef>
#include <optional>

namespace billing {

// The slab pool's mutex: the only one that nginx releases when its holder dies.
class SlabLock final : public ZoneLock {
public:
    explicit SlabLock(ngx_slab_pool_t* pool) noexcept : pool_(pool) {}
    void lock() noexcept override { ngx_shmtx_lock(&pool_->mutex); }
    void unlock() noexcept override { ngx_shmtx_unlock(&pool_->mutex); }

private:
    ngx_slab_pool_t* pool_;
};

// The table's block within the zone. Mapped before the workers are made, so at one address in all of them.
struct ZoneBlock {
    void* at = nullptr;
    std::size_t bytes = 0;
};

// What hangs on ngx_shm_zone_t::data, in the memory of the cycle.
struct ZoneData {
    std::optional<SlabLock> lock;
    ZoneBlock block;
};

// Setter's part: NGX_CONF_OK, or an error that has been logged.
char* add_zone(ngx_conf_t* cf, ngx_str_t name, std::size_t size, MainConf& main);

} // namespace billing
