// The lock of a zone's writers. nginx implements it over the slab pool's mutex, the only one that is released when its
// holder dies; unit tests over a spin lock of their own. Readers take no lock.
#pragma once

namespace billing {

class ZoneLock {
public:
    virtual void lock() noexcept = 0;
    virtual void unlock() noexcept = 0;

    // Called after each store that a writer makes while it changes a record: the moments at which its death matters.
    virtual void stored() noexcept {}

protected:
    ~ZoneLock() = default;
};

} // namespace billing
