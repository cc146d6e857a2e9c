// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Threads started in the life of this object take no signals: those are for the threads of the program itself.

#pragma once

#include <csignal>

namespace srpfs::fabric::verbs {

class SignalsBlocked {
public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_;
};

}  // namespace srpfs::fabric::verbs
