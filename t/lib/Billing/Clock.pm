# A clock that a test moves, for all processes of a world at once: libfaketime in each of them reads from a file by how much it is
# ahead of the real one. Durations (the monotonic clock) stay real.
#
#   my $clock = Billing::Clock->new;
#   my $world = world(clock => $clock, stripe => 1);
#   $clock->advance(30 * 86400);
package Billing::Clock;
use v5.36;
use Billing::Process qw(new_directory);

sub new($class) {
    my $self = bless {file => new_directory() . '/ahead', ahead => 0}, $class;
    ($self->{library}) = glob '/usr/lib/*/faketime/libfaketimeMT.so.1';
    die "libfaketime is missing: script/setup test installs it\n" if !$self->{library};
    $self->advance(0);
    # A process that was killed has left a semaphore and a shared memory of libfaketime.
    unlink grep { /(\d+)$/ && !Billing::Process::process_alive($1) } glob '/dev/shm/{sem.faketime_sem,faketime_shm}_*';
    return $self;
}

# For the processes that shall live by it.
sub environment($self) {
    return {LD_PRELOAD => $self->{library}, FAKETIME_TIMESTAMP_FILE => $self->{file}, FAKETIME_NO_CACHE => 1,
        FAKETIME_DONT_FAKE_MONOTONIC => 1};
}

sub now($self) { time + $self->{ahead} }

# Seconds from now on. A process sees the old time or the new one, whenever it looks.
sub advance($self, $seconds) {
    $self->{ahead} += $seconds;
    open my $out, '>', "$self->{file}.new" or die "$self->{file}.new: $!\n";
    print $out "+$self->{ahead}\n";
    close $out or die "$self->{file}.new: $!\n";
    rename "$self->{file}.new", $self->{file} or die "$self->{file}: $!\n";
    return;
}

1;
