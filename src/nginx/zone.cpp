#include "nginx/zone.hpp"

namespace billing {

namespace {

ngx_int_t refuse(const ngx_shm_zone_t* zone, const std::string& why) {
    ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0, "billing: zone \"%V\": %s", &zone->shm.name, why.c_str());
    return NGX_ERROR;
}

// One block, as large as the pool can give: all its free pages.
ZoneBlock* allocate_block(ngx_slab_pool_t* pool) {
    pool->log_nomem = 0;
    auto* block = static_cast<ZoneBlock*>(ngx_slab_calloc(pool, sizeof(ZoneBlock)));
    if (block == nullptr) {
        return nullptr;
    }
    block->bytes = static_cast<std::size_t>(pool->pfree) * ngx_pagesize;
    block->at = ngx_slab_alloc(pool, block->bytes);
    return block->at == nullptr ? nullptr : block;
}

// Runs in the master, at start and at each reload, before the workers are made. With `old` the memory is that of the
// configuration before, still in use by its workers: nothing in it may be touched.
ngx_int_t init_zone(ngx_shm_zone_t* zone, void* old) noexcept {
    return guard(zone->shm.log, ngx_int_t{NGX_ERROR}, [&]() -> ngx_int_t {
        auto& data = *static_cast<ZoneData*>(zone->data);
        auto* pool = reinterpret_cast<ngx_slab_pool_t*>(zone->shm.addr);
        data.lock.emplace(pool);
        if (old != nullptr || zone->shm.exists) {
            data.block = *static_cast<const ZoneBlock*>(pool->data);
            const auto table = Table::attach(data.block.at, data.block.bytes, *data.lock);
            return table ? NGX_OK : refuse(zone, table.error());
        }
        ZoneBlock* block = allocate_block(pool);
        if (block == nullptr) {
            return refuse(zone, "too small; write 16m");
        }
        data.block = *block;
        const auto table = Table::create(block->at, block->bytes, *data.lock);
        if (!table) {
            return refuse(zone, table.error());
        }
        pool->data = block;
        return NGX_OK;
    });
}

} // namespace

char* add_zone(ngx_conf_t* cf, ngx_str_t name, std::size_t size, MainConf& main) {
    constexpr std::size_t k_least = std::size_t{2} << 20;
    if (size < k_least) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" is too small; write at least 2m, or 16m for 200000 accounts", &name);
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    ngx_shm_zone_t* zone = ngx_shared_memory_add(cf, &name, size, &ngx_http_billing_module);
    auto* data = pool_new<ZoneData>(cf->pool);
    if (zone == nullptr || data == nullptr) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    zone->init = init_zone;
    zone->data = data;
    main.zone = zone;
    return NGX_CONF_OK;
}

} // namespace billing
