# Billing periods: [anchor + k intervals), the day clamped to the month's end and back to the anchor's own day afterwards.
package Billing::Stripe::Calendar;
use v5.36;
use Exporter 'import';
use List::Util qw(min);
use Time::Local qw(timegm_posix);

our @EXPORT_OK = qw(period_after);

my %seconds = (day => 86400, week => 7 * 86400);
my %months = (month => 1, year => 12);

# The first end of a period of $price's interval, counted from $anchor, after $start.
sub period_after($anchor, $start, $recurring) {
    my $k = 0;
    my $end = $anchor;
    $end = later($anchor, $recurring->{interval}, $recurring->{interval_count} * ++$k) while $end <= $start;
    return $end;
}

sub later($anchor, $interval, $count) {
    return $anchor + $seconds{$interval} * $count if $seconds{$interval};
    my ($second, $minute, $hour, $day, $month, $year) = gmtime $anchor;
    my $all = $year * 12 + $month + $months{$interval} * $count;
    ($year, $month) = (int($all / 12), $all % 12);
    return timegm_posix($second, $minute, $hour, min($day, days_of($year + 1900, $month)), $month, $year);
}

sub days_of($year, $month) {
    return (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[$month] if $month != 1;
    return $year % 4 == 0 && ($year % 100 != 0 || $year % 400 == 0) ? 29 : 28;
}

1;
