# Runs build/unit-tests (GoogleTest) as a test file of prove: each C++ test is one test here, with its output when it fails.
# The sanitized round runs build/asan/unit-tests. Services that tests need they start themselves (t/unit/servers.hpp).
package Billing::Unit;
use v5.36;
use Billing::Process qw(build sanitized slurp new_directory);
use JSON::PP ();
use Test::More ();

# filter => a gtest filter (all).
sub run($class, %option) {
    my $directory = new_directory();
    my $filter = $option{filter} // '*';
    my $report = "$directory/report.json";
    my $process = Billing::Process->start(
        name => 'unit-tests',
        command => [build() . (sanitized() ? '/asan' : '') . '/unit-tests', "--gtest_filter=$filter", "--gtest_output=json:$report",
            '--gtest_brief=0'],
        log => "$directory/log",
        directory => $directory,
        env => {ASAN_OPTIONS => 'abort_on_error=1', UBSAN_OPTIONS => 'halt_on_error=1:print_stacktrace=1'},
    );
    my $status = $process->wait_exit(300);
    my $text = $process->log_text;
    my $suites = -s $report ? JSON::PP::decode_json(slurp($report))->{testsuites} : [];
    my $all = 0;
    for my $suite (@$suites) {
        for my $test ($suite->{testsuite}->@*) {
            next if $test->{status} ne 'RUN';
            $all++;
            my @failures = map { $_->{failure} } @{$test->{failures} // []};
            Test::More::ok(!@failures && $test->{result} eq 'COMPLETED', "$suite->{name}.$test->{name}")
                or Test::More::diag(@failures ? @failures : $test->{result});
        }
    }
    Test::More::ok($all > 0, "there are tests for $filter");
    Test::More::is($status, 0, 'the test program ends with 0') or !$all || $text =~ /Sanitizer|runtime error/ and Test::More::diag($text);
    Test::More::done_testing();
    return;
}

1;
