// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "peers.h"

#include <srpfs/base/assert.h>

namespace srpfs::fs {

// What nobody has looked at when reactors end; buffers are their engines'.
Desk::~Desk() {
    for (const Mail& mail : mail_) delete[] mail.copy;
}

bool Desk::put(std::vector<Mail>& mail, bool urgent) {
    {
        const std::lock_guard lock(mutex_);
        if (mail_.empty())
            mail_.swap(mail);
        else
            mail_.insert(mail_.end(), mail.begin(), mail.end());
        has_mail_.store(true);
    }
    mail.clear();
    // One that helps and has gone to sleep with requests on their way stops helping when it is told of their end. That
    // it sleeps is seen first: it has said that it helps before.
    return asleep_.load() && (urgent || helps_.load()) && must_be_woken();
}

bool Desk::ask() {
    asked_.store(Asked::to_help);
    return must_be_woken();
}

bool Desk::must_be_woken() { return asleep_.load() && asleep_.exchange(false); }

void Desk::take(std::vector<Mail>& into) {
    SRPFS_ASSERT(into.empty());
    if (!has_mail_.load(std::memory_order_acquire)) return;
    const std::lock_guard lock(mutex_);
    has_mail_.store(false);
    mail_.swap(into);
}

bool Desk::fall_asleep() {
    asleep_.store(true);
    if (!has_mail_.load() && asked_.load() == Asked::nothing) return true;
    asleep_.store(false);
    return false;
}

}  // namespace srpfs::fs
