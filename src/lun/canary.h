// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Defects on purpose. A simulation that does not find them would not find the others either. Off unless a build asks
// for one by name (-Dcanary=...); such a build is never for use.

#pragma once

namespace srpfs::lun::canary {

// A write that the target was too busy for is acknowledged all the same.
#ifdef SRPFS_CANARY_LOST_WRITE
inline constexpr bool lost_write = true;
#else
inline constexpr bool lost_write = false;
#endif

// A read that the target was too busy for returns what was in the buffer before.
#ifdef SRPFS_CANARY_STALE_READ
inline constexpr bool stale_read = true;
#else
inline constexpr bool stale_read = false;
#endif

// A request that was answered early is answered again when its command ends.
#ifdef SRPFS_CANARY_DOUBLE_ANSWER
inline constexpr bool double_answer = true;
#else
inline constexpr bool double_answer = false;
#endif

// A write that lost its connection is sent again without a fence: what the target still has of it may be carried out
// after later writes (decisions 1).
#ifdef SRPFS_CANARY_UNFENCED_RETRY
inline constexpr bool unfenced_retry = true;
#else
inline constexpr bool unfenced_retry = false;
#endif

// A flush is answered as done, and nothing is sent.
#ifdef SRPFS_CANARY_SKIPPED_FLUSH
inline constexpr bool skipped_flush = true;
#else
inline constexpr bool skipped_flush = false;
#endif

// A volatile cache that was lost is told to nobody.
#ifdef SRPFS_CANARY_SILENT_CACHE_LOSS
inline constexpr bool silent_cache_loss = true;
#else
inline constexpr bool silent_cache_loss = false;
#endif

// A registration that the target has forgotten is not repeated, and believed to be there.
#ifdef SRPFS_CANARY_STALE_REGISTRATION
inline constexpr bool stale_registration = true;
#else
inline constexpr bool stale_registration = false;
#endif

// A look that finds another size keeps the one that was known.
#ifdef SRPFS_CANARY_OLD_CAPACITY
inline constexpr bool old_capacity = true;
#else
inline constexpr bool old_capacity = false;
#endif

}  // namespace srpfs::lun::canary
